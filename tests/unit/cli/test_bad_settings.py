"""A setting that cannot be used stops the commands that use it, before the expensive part of their work; no others."""

import shutil
from pathlib import Path

import pytest

from tests.tools.bad_input import World
from tests.tools.fake_program import path_of
from tests.unit.cli.test_bad_names import build_exists

BAD = """\
default-arch = "nope"
[build]
parallel = 5000
[build.tools]
foo = "/x"
[build.cache]
directory = "here"
max-size = ""
remote = "nowhere"
[source]
repo-url = "ext::sh"
package-index = "nowhere"
"""


def built_words(world: World) -> tuple[str, ...]:
    return ("b11401", "--arch", "cpu", "--repo-url", world.repository.url, "--ignore-python")


def test_commands_that_use_none_of_the_bad_settings_work(world: World) -> None:
    build_exists(world)
    world.config.write_text(BAD)
    world.cli.done("config", "show")
    assert world.cli.done("config", "get", "default-arch").stdout == "nope\n"
    assert world.cli.json("install", "x", *built_words(world))["action"] == "reused"
    assert world.cli.json("install", "x", *built_words(world))["action"] == "unchanged"
    assert world.cli.json("update", "x", "b11401", "--ignore-python")["action"] == "unchanged"
    world.cli.done("instance", "repair", "x", "--check")
    world.cli.done("instance", "repair", "x")
    assert "differs" in world.cli("instance", "sync", world.root / "team", "--check").stderr
    world.cli.done("instance", "gc")
    world.cli.done("install", "b11401", "--pull-only", "--repo-url", world.repository.url)


@pytest.mark.parametrize(
    "words",
    [("install", "x"), ("install", "--from", "ROOT/one.toml"), ("instance", "sync", "ROOT"), ("quickstart", "b11401")],
    ids=" ".join,
)
def test_a_bad_default_arch_is_named_before_anything_is_fetched(world: World, words: tuple[str, ...]) -> None:
    (world.root / "one.toml").write_text(f'name = "one"\nversion = "b11401"\nrepo-url = "{world.repository.url}"\n')
    words = tuple(word.replace("ROOT", str(world.root)) for word in words)
    if words[0] == "quickstart":
        world.cli.done("uninstall", "main")
    for text, extra, named in (
        (BAD, {}, f"cannot use in {world.config}: default-arch 'nope': no recipe has this name"),
        ("", {"LLAMA_MGR_DEFAULT_ARCH": "none"}, "cannot use LLAMA_MGR_DEFAULT_ARCH 'none': no recipe has this name"),
    ):
        world.config.write_text(text)
        answer = world.cli(*words, **extra)
        assert (answer.status, named in answer.stderr) == (2, True), answer.stderr
        assert not world.home.source_dir.exists()


def test_a_bad_repository_is_named_where_no_other_is_given(world: World) -> None:
    world.config.write_text('[source]\nrepo-url = "https://u:secret@host.invalid/x"\n')
    (world.root / "one.toml").write_text('name = "one"\nversion = "b11401"\narch = "cpu"\n')
    for words in (("x", "b11401", "--arch", "cpu"), ("--from", world.root / "one.toml")):
        answer = world.cli("install", *words)
        named = f"cannot use in {world.config}: source.repo-url 'https://host.invalid/x': no credentials"
        assert (answer.status, named in answer.stderr) == (2, True), answer.stderr
        assert not world.home.source_dir.exists()


def test_a_bad_package_index_is_named_where_a_snapshot_is_taken(world: World) -> None:
    answer = world.cli(
        "install", "x", "b11401", "--arch", "cpu", "--source", "snapshot", LLAMA_MGR_SOURCE_PACKAGE_INDEX="nowhere"
    )
    assert (answer.status, "cannot use LLAMA_MGR_SOURCE_PACKAGE_INDEX '***'" in answer.stderr) == (2, True)


@pytest.mark.parametrize(
    ("section", "status", "named"),
    [
        ('[build.cache]\nmax-size = ""', 2, "build.cache.max-size '': a size such as 10G"),
        ('[build.cache]\nremote = "//u:secret@host"', 2, "build.cache.remote '***': a URL such as redis"),
        ('[build.cache]\ndirectory = "here"', 2, "build.cache.directory 'here': an absolute path"),
        ("[build]\nparallel = 5000", 2, "build.parallel '5000': 1 to"),
        ('[build.cache]\nmax-size = ""\nenabled = false', 8, "cannot build here: missing"),
    ],
)
def test_what_a_build_uses_is_checked_before_the_check_out(
    world: World, tmp_path: Path, section: str, status: int, named: str
) -> None:
    world.config.write_text(section)
    (tmp_path / "bin").mkdir()
    without_compiler = path_of(tmp_path / "bin")  # so that even a wrong build ends soon
    (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
    answer = world.cli("install", "x", *built_words(world), **without_compiler)
    assert (answer.status, named in answer.stderr) == (status, True), answer.stderr
    assert not world.home.logs_dir.exists(), "a failure after the check-out leaves a log"
