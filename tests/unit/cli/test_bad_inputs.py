"""Bad inputs 1-17, 27-29 and 32-59 of the project's table of hostile and mistaken input, on the real command line.

Each case names its row. All assert the exact exit status, the shape of the message (`error: what 'input': why`, at most
three lines besides a child's last lines, nothing unprintable, no traceback), and that nothing was made or changed below
the user's directories: names, kinds, modes and bytes are compared before and after, and canary files stay absent. Lock
files may appear, and the bare mirror of a repository that really was asked.

Where our command line differs from the table's words:

* `--ref` is the VERSION argument and `--branch`; `--profile` is `--arch`; `--repo` is `--repo-url`; `server start
  --port` is `quickstart --port`.
* Row 7: names are ASCII, so the two Unicode forms of a name cannot both exist: both are malformed (2).
* Row 17: root may bind port 80, so that part is not tried.
* Row 48: there is no older schema yet, so a missing one counts as the first, and others are refused.
* Rows 50 and 51 speak of an index that can be made again. Our counterpart is `instances/<name>.json`, which is no
  cache: it alone knows what a name stands for. So it is not rebuilt from a guess; the command that needs it ends
  with 5, names the file and the command that mends it, and `instance list` shows the others and warns.
* Row 54: a server is `servers/<name>/`, alive while its lock is held. What its record says of a pid is never a target.
* Row 55: the stale file is `alive.lock`.
* Row 56: commands that build wait and say for whom; those that take no time end with 4.
* Row 57: a lock file that somebody deletes while it is free is simply made again; our commands never delete one. (That
  a process that opened the deleted file notices it is tested with the store.)
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_mgr import locks, staging
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from tests.conftest import Answer, Cli
from tests.tools.shelf_build import plan_of, program_of, publish_build
from tests.tools.tiny_repository import TINY_DIR, TinyRepository

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
_REMARKS = ("error: ", "hint:  ", "log:   ", "  | ", "==> ", "    ", "warning: ")


@dataclass
class World:
    """A home with the instance `main` (two generations), and everything that must not change."""

    cli: Cli
    home: Home
    root: Path
    environ: dict[str, str]
    repository: TinyRepository
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def canary(self) -> Path:
        """What hostile input tries to make."""
        return self.root / "canary"

    @property
    def config(self) -> Path:
        return self.home.config_file

    def snapshot(self) -> dict[str, str]:
        """Every path below the test's directory, with its kind, mode and content."""
        found = {}
        for directory, names, files in os.walk(self.root):
            place = Path(directory)
            if place in {self.home.locks_dir, self.home.source_dir}:
                names.clear()
                continue
            for name in [*names, *files]:
                path = place / name
                if path not in {self.home.locks_dir, self.home.source_dir, self.home.staging_dir}:
                    found[str(path.relative_to(self.root))] = _described(path)
        return found


def _described(path: Path) -> str:
    mode = path.lstat().st_mode
    if path.is_symlink():
        return f"{mode:o} -> {path.readlink()}"
    if path.is_file():
        with path.open("rb") as file:
            return f"{mode:o} {path.stat().st_size} {hashlib.sha256(file.read(1 << 20)).hexdigest()}"
    return f"{mode:o}"


@pytest.fixture
def world(
    cli: Cli, home: Home, tmp_path: Path, environ: dict[str, str], tiny_repository: TinyRepository
) -> Iterator[World]:
    cli.cwd = tmp_path / "work"
    cli.cwd.mkdir()
    instances = Instances(home)
    for number in (1, 2):
        instances.point("main", publish_build(home, plan_of(number)), WantedBuild(version=f"b{number}"))
    found = World(cli, home, tmp_path, environ, tiny_repository)
    with found.cleanup:
        yield found


@dataclass(frozen=True)
class Case:
    """One bad input."""

    row: int
    name: str
    words: tuple[object, ...]
    status: int
    says: tuple[str, ...] = ()
    """Parts of what is said on stderr."""
    before: Callable[[World], object] | None = None
    extra: tuple[tuple[str, str], ...] = ()
    marks: tuple[pytest.MarkDecorator, ...] = ()

    @property
    def parameter(self) -> object:
        return pytest.param(self, id=f"row-{self.row:02d}-{self.name}", marks=self.marks)


def case(row: int, name: str, *words: object, status: int, says: str | tuple[str, ...] = (), **more: object) -> Case:
    return Case(row, name, words, status, (says,) if isinstance(says, str) else says, **more)  # type: ignore[arg-type]


FORM = "[a-z0-9][a-z0-9._-]{0,63}"
CHECK = ("config", "show")


# -- names and versions (rows 1-16) ------------------------------------------------------------------------------------

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
    case(16, "unknown-arch", "install", "x", "--arch", "nope", "--repo-url", "TINY", status=3, says="'nope'"),
    case(16, "near-arch", "install", "x", "--arch", "vulcan", "--repo-url", "TINY",
         status=3, says="did you mean 'vulkan'?"),
    *[
        case(17, f"port{port}", "quickstart", "--port", port, status=2, says="65535")
        for port in ("70000", "0", "-1")
    ],
    case(17, "port-word", "quickstart", "--port", "http", status=2, says="port"),
]  # fmt: skip


# -- places, tools and the command line itself (rows 27-38) ------------------------------------------------------------


def home_is_a_file(world: World) -> None:
    (world.root / "file").write_text("not a directory")


def home_of_a_stranger(world: World) -> None:
    (world.root / "stranger").mkdir()
    os.chown(world.root / "stranger", 65534, 65534)


def home_open_to_all(world: World) -> None:
    (world.root / "open").mkdir()
    (world.root / "open").chmod(0o777)


def server_runs_main(world: World) -> None:
    directory = world.home.servers_dir / "chat"
    directory.mkdir(parents=True)
    document = {
        "schema": 1, "kind": "server", "written_by": "0", "build_id": plan_of(2).build_id, "model": "m.gguf",
        "port": 8080, "pid": 1, "started_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    (directory / "server.json").write_text(json.dumps(document))
    lock = world.cleanup.enter_context((directory / "alive.lock").open("wb"))
    fcntl.flock(lock, fcntl.LOCK_EX)


def without_marker(world: World) -> None:
    (world.home.builds_dir / plan_of(2).build_id / staging.MARKER_NAME).unlink()


def build_is_a_link(world: World) -> None:
    build = world.home.builds_dir / plan_of(2).build_id
    build.rename(world.root / "elsewhere")
    build.symlink_to(world.root / "elsewhere")


def instance_dir_is_a_link(world: World) -> None:
    directory = world.home.instances_dir / "main"
    directory.rename(world.root / "elsewhere")
    directory.symlink_to(world.root / "elsewhere")


def instance_dir_has_a_stranger(world: World) -> None:
    (world.home.instances_dir / "main" / "thesis.txt").write_text("mine")


def one_generation(world: World) -> None:
    Instances(world.home).trim("main", 1)


PLACES = [
    case(27, "home-below-a-file", "instance", "list", status=10, says="file/home", before=home_is_a_file,
         extra=(("LLAMA_MGR_HOME", "ROOT/file/home"),)),
    case(27, "home-is-a-file", "instance", "list", status=10, says="/file", before=home_is_a_file,
         extra=(("LLAMA_MGR_HOME", "ROOT/file"),)),
    case(27, "home-not-writable", "instance", "list", status=10, says="/proc/llama-mgr",
         extra=(("LLAMA_MGR_HOME", "/proc/llama-mgr"),)),
    case(28, "server-runs", "uninstall", "main", status=4, says=("'chat'", "--force"), before=server_runs_main),
    case(29, "no-marker", "uninstall", "main", status=11, says="marker", before=without_marker),
    case(29, "build-is-a-link", "uninstall", "main", status=11, says="cannot delete", before=build_is_a_link),
    case(29, "directory-is-a-link", "uninstall", "main",
         status=11, says="cannot remove", before=instance_dir_is_a_link),
    case(29, "stranger-inside", "uninstall", "main", status=11, says="thesis.txt", before=instance_dir_has_a_stranger),
    case(31, "nothing-earlier", "instance", "rollback", "main",
         status=3, says="no earlier build", before=one_generation),
    case(32, "no-compiler", "install", "x", str(TINY_DIR), "--arch", "cpu", status=8, says=("c++:", "hint:"),
         extra=(("PATH", "ROOT/nothing"),)),
    case(32, "no-git", "install", "x", "b11434", "--arch", "cpu", "--repo-url", "TINY", status=8, says="git",
         extra=(("PATH", "ROOT/nothing"),)),
    case(35, "no-home", "instance", "list",
         status=2, says="LLAMA_MGR_HOME", extra=(("LLAMA_MGR_HOME", ""), ("HOME", ""))),
    case(35, "home-is-root", "instance", "list", status=2, says="LLAMA_MGR_HOME",
         extra=(("LLAMA_MGR_HOME", ""), ("HOME", "/"))),
    case(35, "home-does-not-exist", "instance", "list", status=10, says="LLAMA_MGR_HOME",
         extra=(("LLAMA_MGR_HOME", ""), ("HOME", "ROOT/nonexistent"))),
    case(35, "home-with-newline", "instance", "list", status=2, says="LLAMA_MGR_HOME",
         extra=(("LLAMA_MGR_HOME", ""), ("HOME", "ROOT/a\nb"))),
    case(35, "relative", "instance", "list", status=2, says="absolute", extra=(("LLAMA_MGR_HOME", "here"),)),
    case(35, "root-as-ours", "instance", "list", status=2, says="root", extra=(("LLAMA_MGR_HOME", "/"),)),
    case(36, "somebody-elses", "instance", "list", status=11, says=("65534", "sudo -H"), before=home_of_a_stranger,
         extra=(("LLAMA_MGR_HOME", "ROOT/stranger"),), marks=(ROOT_ONLY,)),
    case(36, "open-to-all", "instance", "list", status=11, says="chmod go-w", before=home_open_to_all,
         extra=(("LLAMA_MGR_HOME", "ROOT/open"),)),
    case(37, "4096-arguments", "exec", "llama-server", "--", *["x"] * 4096, status=2, says="too long"),
    case(37, "long-argument", "install", "x" * 110_000, status=2, says="too long"),
    case(38, "command", "instal", status=2, says="did you mean 'install'?"),
    case(38, "subcommand", "instance", "lst", status=2, says=("'list'",)),
    case(38, "flag", "install", "--paralel", "2", status=2, says="--parallel"),
]  # fmt: skip


# -- config.toml (rows 39-49) ------------------------------------------------------------------------------------------


def wrote(content: str | bytes) -> Callable[[World], None]:
    def before(world: World) -> None:
        raw = content.encode() if isinstance(content, str) else content
        world.config.write_bytes(raw.replace(b"HOME", str(world.home.root).encode()))

    return before


def config_is_a_directory(world: World) -> None:
    world.config.mkdir()


def config_is_a_fifo(world: World) -> None:
    os.mkfifo(world.config)


def config_is_endless(world: World) -> None:
    world.config.symlink_to("/dev/zero")


def config_is_huge(world: World) -> None:
    with world.config.open("wb") as file:
        file.truncate(1 << 30)


def config_is_a_loop(world: World) -> None:
    world.config.symlink_to("config.toml")


def models_dir(kind: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        directory = world.root / "models"
        directory.mkdir()
        if kind == "open":
            directory.chmod(0o777)
        else:
            os.chown(directory, 65534, 65534)
        world.config.write_text(f'models-dir = "{directory}"\n')

    return before


CONFIG = [
    case(39, "syntax", *CHECK, status=2, says=("config.toml:2:", "parallel ="), before=wrote("[build]\nparallel = \n")),
    case(40, "nul", *CHECK, status=2, says="UTF-8", before=wrote(b'default-arch = "c\0pu"\n')),
    case(40, "utf-16", *CHECK, status=2, says="UTF-8", before=wrote('default-arch = "cpu"\n'.encode("utf-16"))),
    case(40, "byte-order-mark", *CHECK, status=2, says="UTF-8", before=wrote(b'\xef\xbb\xbfdefault-arch = "cpu"\n')),
    case(40, "latin-1", *CHECK, status=2, says="UTF-8", before=wrote('default-arch = "é"\n'.encode("latin-1"))),
    case(41, "key", *CHECK,
         status=2, says=("build.cmake-arg'", "'cmake-args'"), before=wrote("[build]\ncmake-arg = []\n")),
    case(41, "key-with-escape", *CHECK, status=2, says="\\x1b", before=wrote('"\\u001b[31m" = 1\n')),
    case(42, "number", *CHECK,
         status=2, says=("build.parallel", "found '4'"), before=wrote('[build]\nparallel = "4"\n')),
    case(42, "list", *CHECK, status=2, says="build.cmake-args", before=wrote('[build]\ncmake-args = "-DA=1"\n')),
    case(42, "zero", *CHECK, status=2, says="build.parallel", before=wrote("[build]\nparallel = 0\n")),
    *[
        case(43, f"cmake-switch-{number}", *CHECK, status=2, says="only -DNAME=VALUE",
             before=wrote(f"[build]\ncmake-args = {json.dumps(arguments)}\n"))
        for number, arguments in enumerate((["-C evil.cmake"], ["-P", "evil.cmake"], ["; touch canary"], ["-DA B=1"]))
    ],
    *[
        case(44, name, *CHECK, status=11, says="models-dir", before=wrote(f'models-dir = "{place}"\n'))
        for name, place in (
            ("root", "/"), ("etc", "/etc"), ("tilde", "~root"), ("home", "HOME"), ("builds", "HOME/builds/x"),
            ("etc-in-disguise", "/usr/../etc"),
        )
    ],
    case(45, "open", *CHECK, status=11, says="chmod o-w", before=models_dir("open")),
    case(45, "stranger", *CHECK, status=11, says="chown", before=models_dir("stranger"), marks=(ROOT_ONLY,)),
    case(46, "directory", *CHECK, status=10, says="config.toml", before=config_is_a_directory),
    case(46, "fifo", *CHECK, status=10, says="not a regular file", before=config_is_a_fifo),
    case(46, "endless", *CHECK, status=10, says="not a regular file", before=config_is_endless),
    case(46, "huge", *CHECK, status=10, says="limit", before=config_is_huge),
    case(46, "loop", *CHECK, status=10, says="config.toml", before=config_is_a_loop),
    case(47, "newer", *CHECK, status=12, says="upgrade llama-mgr", before=wrote("schema = 99\n")),
    case(48, "word", *CHECK, status=2, says="schema", before=wrote('schema = "x"\n')),
    case(48, "negative", *CHECK, status=2, says="schema", before=wrote("schema = -1\n")),
    case(49, "no-such-file", "--config", "ROOT/missing.toml", *CHECK, status=2, says="config init"),
]  # fmt: skip


# -- our own state (rows 50-58) ----------------------------------------------------------------------------------------


def record_is(content: bytes) -> Callable[[World], None]:
    def before(world: World) -> None:
        (world.home.instances_dir / "main.json").write_bytes(content)

    return before


def record_points_at(build_id: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        file = world.home.instances_dir / "main.json"
        document = json.loads(file.read_bytes())
        document["generations"][0]["build_id"] = build_id
        file.write_text(json.dumps(document))

    return before


def other_bytes(world: World) -> None:
    program = program_of(world.home, plan_of(2).build_id)
    program.write_bytes(program.read_bytes().replace(b"version", b"VERSION"))


def current_is(target: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        link = world.home.instances_dir / "main" / "current"
        link.unlink()
        if target:
            link.symlink_to(target)
        else:
            link.mkdir()

    return before


def file_size_is(value: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        file = world.home.builds_dir / plan_of(2).build_id / "build.json"
        text = file.read_text()
        size = program_of(world.home, plan_of(2).build_id).stat().st_size
        assert f'"size_bytes": {size}' in text
        file.write_text(text.replace(f'"size_bytes": {size}', f'"size_bytes": {value}'))

    return before


def schema_is(value: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        file = world.home.instances_dir / "main.json"
        file.write_text(file.read_text().replace('"schema": 1', f'"schema": {value}'))

    return before


def lock_is_held(world: World) -> None:
    path = locks.lock_file(world.home, "instance-main")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"pid": 4711, "purpose": "install main", "since": "2026-01-01T00:00:00Z"}))
    lock = world.cleanup.enter_context(path.open("rb+"))
    fcntl.flock(lock, fcntl.LOCK_EX)


EXEC = ("exec", "-i", "main", "llama-server")
WHOLE = ("instance", "repair", "main", "--check")
STATE = [
    *[
        case(50, name, *EXEC, status=5, says=("main.json", "hint:"), before=record_is(content))
        for name, content in (
            ("cut", b'{"schema": 1, "kind": "instan'), ("empty", b""), ("null", b"null"), ("deep", b"[" * 100_000),
            ("twice", b'{"schema": 1, "schema": 1}'), ("binary", bytes(range(256))),
        )
    ],
    case(51, "leaves", *EXEC, status=5, says="main.json", before=record_points_at("../../x")),
    case(51, "absolute", *EXEC, status=5, says="main.json", before=record_points_at("/etc")),
    case(51, "unknown-build", *EXEC, status=5, says="b9-cpu-00000000", before=record_points_at("b9-cpu-00000000")),
    case(52, "other-bytes", *WHOLE, status=5, says=("bin/llama-server", "sha256", "instance repair main"),
         before=other_bytes),
    case(53, "outside", *WHOLE, status=5, says=("current", "instance repair main"), before=current_is("/etc")),
    case(53, "dangling", *WHOLE, status=5, says=("current", "repair"), before=current_is("../../builds/nothing")),
    case(53, "directory", *WHOLE, status=5, says=("current", "repair"), before=current_is("")),
    case(56, "rollback", "instance", "rollback", "main", status=4, before=lock_is_held,
         says=("pid 4711", "since 2026-01-01T00:00:00Z", "install main")),
    *[
        case(58, name, *WHOLE, status=5, says="size", before=file_size_is(value))
        for name, value in (("negative", "-1"), ("infinite", "1e400"), ("word", '"7"'))
    ],
    case(58, "nan", *WHOLE, status=5, says="NaN", before=file_size_is("NaN")),
    case(58, "2-to-70", *WHOLE, status=5, says="llama-server", before=file_size_is(str(2**70))),
    case(47, "newer-record", *EXEC, status=12, says="upgrade llama-mgr", before=schema_is("99")),
    case(48, "record-schema-word", *EXEC, status=5, says="schema", before=schema_is('"x"')),
]  # fmt: skip


def run(world: World, one: Case) -> Answer:
    def filled(word: object) -> str:
        return str(word).replace("ROOT", str(world.root)).replace("TINY", world.repository.url)

    extra = {name: filled(value) for name, value in one.extra}
    return world.cli(*map(filled, one.words), **extra)


def assert_shape(answer: Answer) -> None:
    """The message is one a person can read, whatever the input was."""
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    for character in answer.stderr.replace("\n", ""):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}, hex(ord(character))
    lines = answer.stderr.splitlines()
    assert all(line.startswith(_REMARKS) for line in lines), answer.stderr
    own = [line for line in lines if line.startswith(("error: ", "hint:  "))]
    assert [line[:6] for line in own] in (["error:"], ["error:", "hint: "]), answer.stderr
    assert all(len(line) <= 1000 for line in own)


@pytest.mark.parametrize("one", [one.parameter for one in (*NAMES, *PLACES, *CONFIG, *STATE)])
def test_refused(world: World, one: Case) -> None:
    if one.before is not None:
        one.before(world)
    before = world.snapshot()
    answer = run(world, one)
    assert answer.status == one.status, answer.stderr
    assert_shape(answer)
    for part in one.says:
        assert part in answer.stderr
    assert "tok3n" not in answer.stderr
    assert world.snapshot() == before
    assert not list(world.root.rglob("canary"))


def test_refused_as_json(world: World) -> None:
    document = world.cli.json("install", "a\x1bb", status=2)
    assert document["error"]["code"] == "bad_name"
    assert document["error"]["exit"] == 2


# -- rows whose command succeeds ---------------------------------------------------------------------------------------


def test_row_33_planted_programs_in_the_working_directory_do_not_run(world: World) -> None:
    for name in ("git", "cmake", "ninja", "cc", "c++", "ccache"):
        program = world.cli.cwd / name
        program.write_text(f"#!/bin/sh\ntouch {world.canary}\n")
        program.chmod(0o755)
    path = os.pathsep.join(["", ".", world.environ["PATH"]])
    words = ("install", "x", "b11434", "--arch", "cpu", "--repo-url", world.repository.url, "--dry-run")
    answer = world.cli.json(*words, PATH=path)
    assert answer["version"] == "b11434"
    assert not world.canary.exists()


@pytest.mark.parametrize(
    "extra",
    [{"TERM": "dumb"}, {"TERM": ""}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}, {"COLUMNS": "20"}],
    ids=["row-34-dumb", "row-34-no-term", "row-34-lang-c", "row-34-20-columns"],
)
def test_row_34_poor_terminals(world: World, extra: dict[str, str]) -> None:
    answer = world.cli("instance", "list", **extra)
    assert (answer.status, answer.stderr) == (0, "")
    assert "main" in answer.stdout
    assert "\x1b" not in answer.stdout
    assert world.cli("instance", "show", "nöbody", **extra).status == 2


@pytest.mark.parametrize(
    "redirect", [">&-", "2>&-", ">&- 2>&-", "| head -1", "</dev/null >/dev/full"], ids=lambda text: f"row-34-{text}"
)
@pytest.mark.parametrize("words", ["instance list", "instance show main --json"])
def test_row_34_output_that_goes_nowhere(world: World, redirect: str, words: str) -> None:
    command = " ".join(map(str, world.cli.argv())) + f" {words} {redirect}"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], env=world.environ, cwd=world.cli.cwd, capture_output=True, timeout=60, check=False
    )
    assert ended.returncode in ({10} if "/dev/full" in redirect else {0})
    assert b"Traceback" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr


def test_row_50_the_list_shows_the_others_and_warns(world: World) -> None:
    (world.home.instances_dir / "broken.json").write_bytes(b"{")
    answer = world.cli.done("instance", "list")
    assert "damaged" in answer.stdout
    assert "main" in answer.stdout
    assert "broken.json" in answer.stderr
    assert (world.home.instances_dir / "broken.json").read_bytes() == b"{"


def test_row_53_a_wrong_link_is_not_followed(world: World) -> None:
    current_is("/etc")(world)
    assert "version: 2" in world.cli.done(*EXEC).stdout
    world.cli.done("instance", "repair", "main")
    assert (world.home.instances_dir / "main" / "current").resolve() == world.home.builds_dir / plan_of(2).build_id


@pytest.mark.parametrize("pid", ["child", 1, -1, 0, "abc", 2**70, None], ids=lambda pid: f"row-54-pid-{pid}")
def test_row_54_a_dead_servers_record_is_no_target(world: World, pid: object) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        server_runs_main(world)
        world.cleanup.close()  # the server is dead: nobody holds its lock
        file = world.home.servers_dir / "chat" / "server.json"
        document = json.loads(file.read_bytes())
        file.write_text(json.dumps({**document, "pid": child.pid if pid == "child" else pid, "boot_id": "other"}))
        world.cli.done("instance", "gc")
        assert "removed" in world.cli.done("uninstall", "main").stdout
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@pytest.mark.parametrize(
    "kind", ["file", "socket", "link", "dangling", "directory", "fifo"], ids=lambda kind: f"row-55-{kind}"
)
def test_row_55_something_in_place_of_the_lock(world: World, kind: str) -> None:
    server_runs_main(world)
    world.cleanup.close()
    lock = world.home.servers_dir / "chat" / "alive.lock"
    lock.unlink()
    if kind == "file":
        lock.write_text("somebody's notes")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(lock.parent):
            listener.bind(lock.name)
    elif kind == "directory":
        lock.mkdir()
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.symlink_to(world.config if kind == "dangling" else world.home.instances_dir / "main.json")
    before = world.snapshot()
    world.cli.done("instance", "gc", "--dry-run")
    assert world.snapshot() == before


def test_row_57_a_deleted_lock_file_is_made_again(world: World) -> None:
    world.cli.done("instance", "rollback", "main")
    shutil.rmtree(world.home.locks_dir)
    world.cli.done("instance", "rollback", "main")
    assert locks.lock_file(world.home, "instance-main").exists()


def test_row_59_files_from_the_future(world: World) -> None:
    future = time.mktime((2099, 1, 1, 0, 0, 0, 0, 0, 0))
    for path in world.home.root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (future, future))
    file = world.home.instances_dir / "main.json"
    file.write_text(file.read_text().replace('"made_at": "20', '"made_at": "29'))
    world.cli.done("instance", "list")
    world.cli.done("instance", "rollback", "main")
    world.cli.done("instance", "gc")
    assert "version: 1" in world.cli.done(*EXEC).stdout
