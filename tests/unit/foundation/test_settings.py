from pathlib import Path

import pytest

from llama_mgr.errors import BadConfigError, BadInputError, LlamaMgrError, RefusedError
from llama_mgr.paths import Home
from llama_mgr.settings import (
    load_settings,
    parse_cmake_args,
    parse_define,
    settings_keys,
    variable_of,
)


def written(tmp_path: Path, text: str) -> Home:
    home = Home(tmp_path)
    home.config_file.write_text(text)
    return home


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = load_settings(Home(tmp_path), {})
    assert settings.default_arch == "auto"
    assert settings.build.cache.enabled


def test_the_file_is_read_and_variables_win(tmp_path: Path) -> None:
    home = written(
        tmp_path, 'default-arch = "cpu"\n[build]\nparallel = 3\ncmake-args = ["-DA=1"]\n[build.cache]\nmax-size = "2G"'
    )
    settings = load_settings(home, {"LLAMA_MGR_BUILD_PARALLEL": "7", "LLAMA_MGR_BUILD_CACHE_ENABLED": "false"})
    assert (settings.default_arch, settings.build.parallel, settings.build.cache.max_size) == ("cpu", 7, "2G")
    assert not settings.build.cache.enabled


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("build.parallel", "0", "expected `int` >= 1"),
        ("build.parallel", "a\x1bb", "expected `int`"),
        ("build.cache.enabled", "perhaps", "expected `bool`"),
        ("build.targets", "'x", "No closing quotation"),
        ("models-dir", "/etc", "it is a system directory"),
        ("build.cmake-args", "-P", "only -DNAME=VALUE is allowed"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(tmp_path: Path, key: str, value: str, why: str) -> None:
    with pytest.raises(LlamaMgrError) as caught:
        load_settings(Home(tmp_path), {variable_of(key): value})
    shown = value.replace("\x1b", "\\x1b")
    assert caught.value.message.startswith(f"cannot use {variable_of(key)} '{shown}': {why}")
    assert variable_of(key) in (caught.value.hint or "") or key in {"models-dir", "build.cmake-args"}


def test_every_key_has_a_variable_of_its_own() -> None:
    keys = [key for key, _ in settings_keys()]
    assert "build.cache.max-size" in keys
    assert variable_of("build.cache.max-size") == "LLAMA_MGR_BUILD_CACHE_MAX_SIZE"
    assert len({variable_of(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = ", "config.toml:1:5"),
        ("[build]\nparalel = 3", "paralel"),
        ('[build]\nparallel = "4"', "build.parallel: expected `int"),
        ("[build]\nparallel = 0", "build.parallel"),
        ('[build]\ncmake-args = "-DA=1"', "build.cmake-args: expected `array`"),
        ('schema = "x"', "schema must be 1"),
    ],
)
def test_mistakes_are_pointed_at(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadConfigError) as caught:
        load_settings(written(tmp_path, text), {})
    assert words in caught.value.message
    assert (tmp_path / "config.toml").read_text() == text


def test_a_typo_names_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError) as caught:
        load_settings(written(tmp_path, "[build]\nparalel = 3"), {})
    assert caught.value.hint == "did you mean 'parallel'?"


@pytest.mark.parametrize("argument", ["-C evil.cmake", "-P", "; rm -rf", "-D", "-DA", "--build", "-D=1", "-DA B=1"])
def test_only_defines_reach_cmake(tmp_path: Path, argument: str) -> None:
    with pytest.raises(BadInputError, match=r"only -DNAME=VALUE|defin"):
        load_settings(written(tmp_path, f"[build]\ncmake-args = ['{argument}']"), {})


def test_cmake_args_are_split_as_a_shell_would() -> None:
    assert parse_cmake_args(["-DA=1 -DB:BOOL=ON", "-DC='x y'"]) == {"A": "1", "B": "ON", "C": "x y"}
    assert parse_define("D=a=b") == ("D", "a=b")
    with pytest.raises(BadInputError):
        parse_cmake_args(["-DA='"])


@pytest.mark.parametrize("place", ["/", "/etc", "~root", "relative"])
def test_models_dir_is_not_put_anywhere(tmp_path: Path, place: str) -> None:
    with pytest.raises(RefusedError) as caught:
        load_settings(written(tmp_path, f'models-dir = "{place}"'), {})
    assert caught.value.exit_status == 11


def test_models_dir_may_not_overlap_builds(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for place in (home.root, home.builds_dir, home.source_dir / "x", home.root.parent):
        home.config_file.write_text(f'models-dir = "{place}"')
        with pytest.raises(LlamaMgrError):
            load_settings(home, {})
