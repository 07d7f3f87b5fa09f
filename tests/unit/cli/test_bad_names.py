"""Bad inputs 1-17: names, versions, repositories and numbers on the command line.

* Row 7: names are ASCII, so the two Unicode forms of a name cannot both exist: both are malformed (2).
* Row 17: root may bind port 80, so that part is not tried.
"""

import unicodedata

import pytest

from llama_mgr.build.builder import Builder, Request
from llama_mgr.build.source import Wanted
from llama_mgr.report import SilentReporter
from llama_mgr.settings import Settings
from tests.tools.bad_input import Case, World, assert_refused, case
from tests.tools.shelf_build import publish_build

FORM = "[a-z0-9][a-z0-9._-]{0,63}"
BUILT = ("b11401", "--arch", "cpu", "--repo-url", "TINY", "--ignore-python")


def build_exists(world: World) -> None:
    """Publish the build that `install x BUILT` makes, and a manifest that asks for nothing else."""
    builder = Builder(world.home, Settings(), world.environ, SilentReporter())
    publish_build(world.home, builder.prepare(Request(Wanted("b11401", world.repository.url))).plan)
    text = f'name = "main"\nversion = "b11401"\narch = "cpu"\nrepo-url = "{world.repository.url}"\n'
    (world.root / "team").mkdir()
    (world.root / "team" / "main.toml").write_text(text)


NAMES = [
    case(1, "leaves", "install", "../../etc", status=2, says=(FORM, "'../../etc'")),
    case(2, "absolute", "install", "/abs", status=2, says=FORM),
    case(2, "dot", "install", ".", status=2, says=FORM),
    case(2, "dots", "install", "..", status=2, says=FORM),
    case(3, "empty", "install", "", status=2, says="it is empty"),
    case(3, "blank", "install", "  ", status=2, says="it is empty"),
    case(4, "dash", "install", "--", "-rf", status=2, says="names do not start with '-'"),
    case(5, "newline", "install", "a\nb", status=2, says="'a\\nb'"),
    case(5, "escape", "install", "a\x1b[31mb", status=2, says="'a\\x1b[31mb'"),
    case(5, "right-to-left", "install", "a\u202eb", status=2, says="'a\\u202eb'"),
    case(6, "300-characters", "install", "a" * 300, status=2, says="limit of 64"),
    case(6, "emoji", "install", "\U0001f999" * 64, status=2, says=FORM),
    case(7, "other-case", "install", "Main", status=4, says="'main' exists"),
    case(7, "other-unicode-form", "install", unicodedata.normalize("NFD", "café"), status=2, says=FORM),
    *[
        case(8, f"reserved-{name.strip('.')}", "install", name, status=2, says="it is reserved")
        for name in ("current", "con", ".git", "lock")
    ],
    case(1, "dry-run", "install", "../../etc", "--dry-run", status=2, says=FORM),
    case(1, "pull-only", "install", "../../etc", "--pull-only", status=2, says=FORM),
    case(1, "uninstall", "uninstall", "../../etc", status=2, says=FORM),
    case(1, "use", "use", "../../etc", status=2, says=FORM),
    case(1, "update", "update", "../../etc", status=2, says=FORM),
    case(1, "rollback", "instance", "rollback", "../../etc", status=2, says=FORM),
    case(1, "link", "instance", "link", "../../etc", ".", status=2, says=FORM),
    case(1, "exec", "exec", "-i", "../../etc", "llama-server", status=2, says=FORM),
    case(9, "option-as-version", "install", "x", "--", "--upload-pack=touch canary",
         status=2, says="do not start with '-'"),
    case(9, "option-as-branch", "install", "x", "--branch=--upload-pack=touch canary",
         status=2, says="do not start with"),
    *[
        case(10, f"version-{number}", "install", "x", version, status=2, says="not a valid git ref")
        for number, version in enumerate(("a..b", "x y", "@{", "refs/heads/", "a~1", "x.lock"))
    ],
    *[
        case(10, f"branch-{number}", "install", "x", "--branch", version, status=2, says="not a valid git ref")
        for number, version in enumerate(("a..b", "x y", "@{", "refs/heads/"))
    ],
    case(11, "unknown-commit", "install", "main", "deadbee", "--repo-url", "TINY", status=3, says="'deadbee'"),
    case(11, "unknown-tag", "install", "main", "b99999", "--repo-url", "TINY", status=3, says="'b99999'"),
    *[
        case(12, name, "install", "x", f"--repo-url={url}", status=11, says="https")
        for name, url in (
            ("ext", "ext::sh -c 'touch canary'"), ("fd", "fd::17"), ("dash", "-u./x"), ("ext-upper", "EXT::sh -c id"),
        )
    ],
    case(13, "http", "install", "x", "--repo-url", "http://example.invalid/x", status=11, says="--allow-http"),
    case(14, "credentials", "install", "x", "--repo-url", "https://user:tok3n@host.invalid/x",
         status=2, says="credentials"),
    *[
        case(15, f"parallel{number}", "install", "x", "--parallel", number, status=2, says="parallel")
        for number in ("0", "-3", "1e9", "abc", "1000000000")
    ],
    *[
        case(15, f"nothing-to-compile-{words[0]}", *words, "-j", "0", status=2, says=("--parallel '0'", "1 to "),
             before=build_exists)
        for words in (("install", "x", *BUILT), ("instance", "sync", "ROOT/team"))
    ],
    *[
        case(15, f"only-looks-{words[-1].strip('-')}", *words, "-j", "0", status=2, says="--parallel '0'")
        for words in (
            ("install", "x", *BUILT, "--pull-only"), ("install", "x", *BUILT, "--dry-run"),
            ("update", "main"), ("instance", "repair", "main"), ("instance", "repair", "main", "--check"),
        )
    ],
    case(15, "variable", "install", "x", status=2, says=("LLAMA_MGR_BUILD_PARALLEL '5000'", "1 to ", "unset"),
         extra=(("LLAMA_MGR_BUILD_PARALLEL", "5000"),)),
    case(15, "setting", "install", "x", status=2, says=("build.parallel '5000'", "llama-mgr config set build.parallel"),
         before=lambda world: world.config.write_text("[build]\nparallel = 5000\n")),
    case(16, "unknown-arch", "install", "x", "--arch", "nope", "--repo-url", "TINY", status=3, says="'nope'"),
    case(16, "near-arch", "install", "x", "--arch", "vulcan", "--repo-url", "TINY",
         status=3, says="did you mean 'vulkan'?"),
    *[
        case(17, f"port{port}", "quickstart", "--port", port, status=2, says="65535")
        for port in ("70000", "0", "-1")
    ],
    case(17, "port-word", "quickstart", "--port", "http", status=2, says="port"),
]  # fmt: skip


@pytest.mark.parametrize("one", [one.parameter for one in NAMES])
def test_refused(world: World, one: Case) -> None:
    assert_refused(world, one)


def test_refused_as_json(world: World) -> None:
    document = world.cli.json("install", "a\x1bb", status=2)
    assert document["error"]["code"] == "bad_name"
    assert document["error"]["exit"] == 2


def test_row_15_stands_before_the_clone_and_a_build_that_exists_is_used(world: World) -> None:
    words = ("install", "x", *BUILT[:3], "--repo-url", world.repository.url, "--ignore-python", "--parallel")
    assert world.cli(*words, "0").status == 2
    assert not world.home.source_dir.exists()
    build_exists(world)
    assert world.cli.json(*words, "1")["action"] == "reused"
