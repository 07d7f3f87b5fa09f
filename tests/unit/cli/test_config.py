"""The `config` commands: origins, the template, and edits that keep what people wrote."""

import re
import tomllib
from pathlib import Path

import pytest

from llama_mgr.cli.config_page import edited, template
from llama_mgr.paths import Home
from llama_mgr.settings import Settings, settings_keys
from llama_mgr.toml_file import parsed_toml
from tests.conftest import Cli
from tests.tools.tiny_build import program

OWN = """\
# ours, since March
default-arch = "cpu"   # no GPU in the closet

[build]
parallel = 4
"""


def test_the_template_explains_every_key_and_sets_none(home: Home) -> None:
    text = template()
    assert parsed_toml(text.encode(), home.config_file, Settings) == Settings()
    lines = text.splitlines()
    for key, _ in settings_keys():
        name = key.rpartition(".")[2]
        place = next(number for number, line in enumerate(lines) if line.startswith(f"# {name} = "))
        assert lines[place - 1].startswith("# "), f"{key} is not explained"
        assert len(lines[place - 1]) > 10


def test_every_line_of_the_template_can_be_switched_on(home: Home) -> None:
    on = [line[2:] if re.match(r"# [a-z-]+ = ", line) else line for line in template().splitlines()]
    settings = parsed_toml("\n".join(on).encode(), home.config_file, Settings)
    assert settings.build.tools == {"cmake": "/usr/bin/cmake"}


def test_init_does_not_overwrite(cli: Cli, home: Home) -> None:
    cli.done("config", "init")
    assert home.config_file.read_text() == template()
    home.config_file.write_text(OWN)
    assert cli("config", "init").status == 4
    assert home.config_file.read_text() == OWN


def test_show_tells_where_values_come_from(cli: Cli, home: Home) -> None:
    home.config_file.write_text(OWN)
    rows = cli.json("config", "show", LLAMA_MGR_BUILD_PARALLEL="2")["settings"]
    found = {row["key"]: (row["value"], row["origin"]) for row in rows}
    assert found["default-arch"] == ("cpu", str(home.config_file))
    assert found["build.parallel"] == (2, "LLAMA_MGR_BUILD_PARALLEL")
    assert found["build.cache.max-size"] == ("10G", "default")
    assert set(found) == {key for key, _ in settings_keys()}


def test_set_keeps_comments_and_order(cli: Cli, home: Home) -> None:
    home.config_file.write_text(OWN)
    cli.done("config", "set", "build.cache.max-size", "50G")
    cli.done("config", "set", "default-arch", "cuda")
    text = home.config_file.read_text()
    assert "# ours, since March" in text
    assert 'default-arch = "cuda"   # no GPU in the closet' in text
    assert tomllib.loads(text) == {
        "default-arch": "cuda",
        "build": {"parallel": 4, "cache": {"max-size": "50G"}},
    }
    assert cli.done("config", "get", "build.cache.max-size").stdout == "50G\n"


@pytest.mark.parametrize(
    ("key", "value", "typed"),
    [
        ("build.parallel", "8", 8),
        ("build.cache.enabled", "false", False),
        ("build.targets", "llama-server 'llama bench'", ["llama-server", "llama bench"]),
        ("build.tools.cmake", "/usr/bin/cmake", "/usr/bin/cmake"),
        ("default-arch", "8", "8"),
    ],
)
def test_set_writes_the_right_type(key: str, value: str, typed: object) -> None:
    content, written = edited("", key, value)
    found: object = tomllib.loads(content.decode())
    for part in key.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert found == written == typed


@pytest.mark.parametrize(
    ("key", "value", "status", "says"),
    [
        ("build.paralel", "1", 3, "'build.parallel'"),
        ("build.parallel", "many", 2, "many"),
        ("build.parallel", "0", 2, "1"),
        ("build.cache.enabled", "perhaps", 2, "perhaps"),
        ("build.cmake-args", "-P evil.cmake", 2, "-DNAME=VALUE"),
        ("build.targets", "'unfinished", 2, "quot"),
        ("models-dir", "/etc", 11, "system directory"),
        ("build.parallel", "9999", 2, "cannot set build.parallel to '9999': 1 to"),
        ("build.parallel", "null", 2, "expected `int`"),
        ("build.cache.max-size", "bogus", 2, "'bogus': a size such as 10G"),
        ("build.cache.directory", "ccache", 2, "absolute path"),
        ("build.cache.remote", "//user:secret@host", 2, "'***': a URL such as redis"),
        ("default-arch", "nope", 2, "'nope': no recipe has this name"),
        ("default-arch", "rpc", 2, "it is a part"),
        ("build.tools.cmak", "/x", 2, "did you mean 'cmake'?"),
        ("build.tools.foo", "/x", 2, "no recipe uses a tool of this name"),
        ("build.tools.cmake", "cmake", 2, "hint:  llama-mgr config set build.tools.cmake /usr/bin/cmake"),
        ("source.repo-url", "https://user:secret@host.invalid/x", 2, "'https://host.invalid/x': no credentials"),
        ("source.repo-url", "/srv/x", 11, "hint:  llama-mgr config set source.repo-url file:///srv/x"),
        ("source.repo-url", "ext::sh", 11, "allowed protocols"),
        ("source.package-index", "index.invalid", 2, "an http or https URL"),
        ("schema", "2", 3, "schema"),
        ("build", "x", 3, "build"),
    ],
)
def test_what_would_not_be_accepted_is_not_written(
    cli: Cli, home: Home, key: str, value: str, status: int, says: str
) -> None:
    home.config_file.write_text(OWN)
    answer = cli("config", "set", key, "--", value)
    assert (answer.status, home.config_file.read_text()) == (status, OWN), answer.stderr
    assert says in answer.stderr
    assert "secret" not in answer.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("default-arch", "auto"),
        ("default-arch", "mine"),
        ("build.tools.own-compiler", "/opt/own/compiler"),
        ("build.tools.nvcc", "/usr/local/cuda/bin/nvcc"),
        ("build.tools.c++", "/usr/bin/g++"),
        ("build.tools.git", "/usr/bin/git"),
        ("build.cache.remote", ""),
        ("source.repo-url", "git@host.invalid:fork.git"),
        ("source.repo-url", "http://host.invalid/fork"),  # install --allow-http takes it
        ("build.parallel", "1"),
    ],
)
def test_what_would_be_accepted_is_written(cli: Cli, home: Home, key: str, value: str) -> None:
    home.recipes_dir.mkdir()
    own = 'name = "mine"\ntitle = "Ours"\n[[tool]]\nname = "own-compiler"\nfind = ["path:own"]\n'
    (home.recipes_dir / "mine.toml").write_text(own)
    cli.done("config", "set", key, value)
    assert cli.done("config", "get", key).stdout == f"{value}\n"


BAD = """\
default-arch = "nope"
[build]
cmake-args = ["-P"]
[build.tools]
cmake = "cmake"
[build.cache]
max-size = "bogus"
[source]
repo-url = "https://user:secret@host.invalid/x"
"""


def test_a_bad_value_in_another_file_is_mended_there(cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('default-arch = "nope"\n')
    answer = cli("--config", other, "install", "x")
    assert answer.status == 2
    assert f"cannot use in {other}: default-arch 'nope': " in answer.stderr
    assert f"hint:  llama-mgr --config {other} config set default-arch auto" in answer.stderr


def test_bad_values_are_mended_one_after_the_other(cli: Cli, home: Home) -> None:
    home.config_file.write_text(BAD)
    assert cli("config", "show").status == 2, "an unsafe value is refused at once"
    cli.done("config", "set", "build.cmake-args", "")
    cli.done("config", "show")
    for key, value in (
        ("default-arch", "cpu"),
        ("build.tools.cmake", str(program("cmake"))),
        ("build.cache.max-size", "10G"),
        ("source.repo-url", ""),
    ):
        assert key in str(cli.json("doctor", status=5)["problems"])
        cli.done("config", "set", key, value)
    assert cli.json("doctor")["problems"] == []


def test_secrets_are_shown_to_the_one_who_asks_for_them_alone(cli: Cli, home: Home) -> None:
    for key, value, shown in (
        ("build.cache.remote", "redis://:se%2Fcr@t@host:6379", "redis://***@host:6379"),
        ("source.package-index", "https://host.invalid/list?token=secr@t", "https://host.invalid/list?token=***"),
        ("build.cmake-args", " -DURL=https://u:secr@t@host.invalid", "-DURL=https://***@host.invalid"),
    ):
        assert shown in cli.done("config", "set", key, value).stdout
        assert cli.json("config", "set", key, value)["value"] in (shown, [shown])
        assert cli.done("config", "get", key).stdout == f"{value.strip()}\n"
        rows = {row["key"]: row["value"] for row in cli.json("config", "show")["settings"]}
        assert rows[key] in (shown, [shown])
        assert shown in cli.done("config", "show").stdout
    for spoilt in ('remote = "redis://:secr@t@host', 'remote = ["redis://:secr@t@host"]'):
        home.config_file.write_text(f"[build.cache]\n{spoilt}\n")
        answer = cli("config", "show")
        assert answer.status == 2
        assert "redis://***@host" in answer.stderr


def test_what_the_locale_cannot_read_is_refused(cli: Cli, home: Home) -> None:
    locale = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    answer = cli("config", "set", "models-dir", "/tmp/ä", **locale)  # noqa: S108 (nothing is made there)
    assert answer.status == 2
    assert "it is not text in the encoding of this locale" in answer.stderr
    assert not home.config_file.exists()


def test_a_linked_config_stays_linked(cli: Cli, home: Home, tmp_path: Path) -> None:
    dotfile = tmp_path / "dotfiles.toml"
    dotfile.write_text(OWN)
    home.config_file.symlink_to(dotfile)
    cli.done("config", "set", "build.parallel", "2")
    assert home.config_file.is_symlink()
    assert tomllib.loads(dotfile.read_text())["build"]["parallel"] == 2


def test_another_file_may_be_named(cli: Cli, home: Home, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(OWN)
    assert cli.done("--config", other, "config", "path").stdout == f"{other}\n"
    cli.done("--config", other, "config", "set", "build.parallel", "3")
    assert tomllib.loads(other.read_text())["build"]["parallel"] == 3
    assert not home.config_file.exists()


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o640])
def test_set_keeps_the_permissions_of_the_file(cli: Cli, home: Home, mode: int) -> None:
    home.config_file.write_text(OWN)
    home.config_file.chmod(mode)
    cli.done("config", "set", "build.parallel", "2")
    assert home.config_file.stat().st_mode & 0o777 == mode


def test_a_new_config_is_private(cli: Cli, home: Home) -> None:
    cli.done("config", "set", "build.parallel", "2")
    assert home.config_file.stat().st_mode & 0o777 == 0o600
