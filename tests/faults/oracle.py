"""What must hold on disk after any crash, fault or race: one checker, apart from the product.

It imports nothing of llama_mgr and knows only the state on disk that docs/architecture.md describes, so that a bug in
the product cannot hide itself. As a program:

    python tests/faults/oracle.py HOME [--settled]

prints what is wrong and exits with 1 if anything is. The names I1, I3, ... are those of the invariants:

I1  every instance, every generation of it, its link and the default lead to whole builds: each recorded file is there
    with its size and sha256, and no file is there that is not recorded
I3  the llama-server of every instance runs
I4  every state document parses, is not empty, and carries schema and kind
I5  no process works on this home any more (`processes`)
I6  every lock can be had at once when no process works on this home
I8  nothing was written outside the home (`Outside`)
I9  what interrupted operations left is bounded, and gone once the home is settled (after `instance gc`); what git left
    in a mirror is only bounded
"""

import argparse
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = ".llama-mgr.json"
_UNRECORDED = frozenset({"build.json", MARKER})
_RUN_TIMEOUT_S = 30
# A killed git leaves half a pack with its index, lock files and the note of a work tree. They stay until the mirror is
# written again, because an orphaned git may still be at work on them; more than one operation's worth is a leak.
_GIT_LEFTOVERS = 6
_GIT_CHECKS = (("for-each-ref",), ("rev-list", "--all", "--count"), ("fsck", "--connectivity-only", "--no-dangling"))


class _Wrong(Exception):  # noqa: N818 (it is an answer, not an error)
    """A statement about the state that does not hold."""


def violations(home: Path, *, settled: bool = False, interrupted: int = 1, programs: bool = True) -> list[str]:
    """Return every statement about the home that does not hold; an empty or missing home is in order.

    Args:
        home: what LLAMA_MGR_HOME named.
        settled: every interrupted command was repeated with success and `instance gc` ran: no leftovers are allowed.
        interrupted: how many operations were interrupted; each may have left one thing of a kind.
        programs: also run each instance's server (I3).
    """
    if not home.is_dir():
        return []
    found = [*_documents(home), *_builds(home), *_instances(home, programs=programs), *_default(home), *_mirrors(home)]
    if not processes(home):
        found += _locks(home)
    return found + _leftovers(home, 0 if settled else interrupted)


# -- I4: documents -----------------------------------------------------------------------------------------------------


def document(path: Path, kind: str) -> dict[str, Any]:
    """Return a state document; a _Wrong says why it is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _Wrong(f"I4 {path}: {error.strerror}") from error
    if not raw:
        raise _Wrong(f"I4 {path}: it is empty")
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise _Wrong(f"I4 {path}: {error} in {raw[:60]!r}") from error
    if not isinstance(content, dict) or type(content.get("schema")) is not int or content["schema"] < 1:
        raise _Wrong(f"I4 {path}: it carries no schema")
    if content.get("kind") != kind:
        raise _Wrong(f"I4 {path}: its kind is {content.get('kind')!r}, not {kind!r}")
    return content


def _documents(home: Path) -> Iterator[str]:
    kinds = {
        "instances/*.json": "instance",
        "default-instance.json": "default-instance",
        "builds/*/build.json": "build",
        f"builds/*/{MARKER}": "marker",
        f"source/*.git/{MARKER}": "marker",
    }
    for pattern, kind in kinds.items():
        for path in sorted(home.glob(pattern)):
            if not path.name.startswith(".") or path.name == MARKER:
                yield from _complaints(lambda path=path, kind=kind: document(path, kind))


def _complaints(statement: Any) -> list[str]:  # noqa: ANN401 (any function that raises _Wrong)
    try:
        statement()
    except _Wrong as wrong:
        return [str(wrong)]
    return []


# -- I1: builds, instances, the default --------------------------------------------------------------------------------


def _builds(home: Path) -> Iterator[str]:
    for directory in sorted(home.glob("builds/*")):
        yield from _complaints(lambda directory=directory: check_build(directory))


def check_build(directory: Path) -> None:
    """Check that a build has exactly the recorded files, with their sizes and hashes, and our marker."""
    if directory.is_symlink() or not directory.is_dir():
        raise _Wrong(f"I1 {directory}: it is not a directory")
    record, marker = document(directory / "build.json", "build"), document(directory / MARKER, "marker")
    if record.get("build_id") != directory.name or marker.get("of") != directory.name:
        raise _Wrong(f"I1 {directory}: its record names {record.get('build_id')!r}, its marker {marker.get('of')!r}")
    recorded: dict[str, dict[str, Any]] = record.get("files") or {}
    if not recorded:
        raise _Wrong(f"I1 {directory}: its record lists no files")
    present = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if not path.is_dir()}
    for name, path in present.items():
        if path.is_symlink() and not path.exists():
            raise _Wrong(f"I1 {path}: the link leads nowhere")
        if not path.is_symlink() and name not in recorded and name not in _UNRECORDED:
            raise _Wrong(f"I1 {path}: it is not recorded")
    for name, expected in recorded.items():
        _check_file(directory / name, expected)


def _check_file(path: Path, expected: dict[str, Any]) -> None:
    if not path.is_file():
        raise _Wrong(f"I1 {path}: it is missing")
    content = path.read_bytes()
    if len(content) != expected["size_bytes"]:
        raise _Wrong(f"I1 {path}: {len(content)} bytes, {expected['size_bytes']} recorded")
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise _Wrong(f"I1 {path}: its sha256 is not the recorded one")


def instance_names(home: Path) -> list[str]:
    """Return the names of the instances that have a record."""
    return sorted(path.stem for path in home.glob("instances/*.json") if not path.name.startswith("."))


def generations(home: Path, name: str) -> list[str]:
    """Return the build ids of an instance, the current one first; empty when it is linked or missing."""
    path = home / "instances" / f"{name}.json"
    if not path.exists():
        return []
    return [one["build_id"] for one in document(path, "instance").get("generations", [])]


def _instances(home: Path, *, programs: bool) -> Iterator[str]:
    names = instance_names(home)
    for name in names:
        yield from _complaints(lambda name=name: _check_instance(home, name, programs=programs))
    for link in sorted(home.glob("instances/*/current")):
        if link.parent.name not in names:  # half removed: what is left must lead somewhere all the same
            yield from _complaints(lambda link=link: _check_link(home, link, None))


def _check_instance(home: Path, name: str, *, programs: bool) -> None:
    record = document(home / "instances" / f"{name}.json", "instance")
    if record.get("name") != name:
        raise _Wrong(f"I1 instance {name}: its record names {record.get('name')!r}")
    linked = record.get("linked")
    ids = [one["build_id"] for one in record.get("generations", [])]
    if not ids and linked is None:
        raise _Wrong(f"I1 instance {name}: it names no build")
    for build_id in ids:
        if not (home / "builds" / build_id).is_dir():
            raise _Wrong(f"I1 instance {name}: its build {build_id} does not exist")
        check_build(home / "builds" / build_id)
    link = home / "instances" / name / "current"
    if os.path.lexists(link):
        _check_link(home, link, None if linked is not None else ids)
    prefix = Path(linked) if linked is not None else home / "builds" / ids[0]
    if programs:
        for place in {prefix, link} if link.exists() else {prefix}:
            check_server(place)


def _check_link(home: Path, link: Path, allowed: list[str] | None) -> None:
    if not link.is_symlink():
        raise _Wrong(f"I1 {link}: it is not a link")
    target = Path(os.path.realpath(link))
    if not target.is_dir():
        raise _Wrong(f"I1 {link}: it leads to {link.readlink()}, which does not exist")
    if allowed is not None and (target.parent != Path(os.path.realpath(home / "builds")) or target.name not in allowed):
        raise _Wrong(f"I1 {link}: it leads to {target}, which is none of {allowed}")


def _default(home: Path) -> list[str]:
    path = home / "default-instance.json"
    if not path.exists():
        return []

    def check() -> None:
        name = document(path, "default-instance").get("instance")
        if name not in instance_names(home):
            raise _Wrong(f"I1 default: it names {name!r}, which does not exist")

    return _complaints(check)


# -- I3: it runs -------------------------------------------------------------------------------------------------------


def check_server(prefix: Path) -> None:
    """Check that the llama-server of a build says its version, with no help from the environment."""
    server = prefix / "bin" / "llama-server"
    if not server.exists():
        server = prefix / "llama-server"
    try:
        done = subprocess.run(
            [server, "--version"], env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_RUN_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Wrong(f"I3 {server}: {error}") from error
    if done.returncode != 0:
        raise _Wrong(f"I3 {server} --version: status {done.returncode}: {done.stderr[-200:]!r}")


# -- mirrors -----------------------------------------------------------------------------------------------------------


def _mirrors(home: Path) -> Iterator[str]:
    for mirror in sorted(home.glob("source/*.git")):
        yield from _complaints(lambda mirror=mirror: _check_mirror(mirror))


def _check_mirror(mirror: Path) -> None:
    environ = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
    for words in _GIT_CHECKS:
        done = subprocess.run(
            ["git", f"--git-dir={mirror}", *words], env=environ | {"GIT_NO_LAZY_FETCH": "1"}, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=_RUN_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise _Wrong(f"I1 {mirror}: git {words[0]}: {done.stderr[-300:].decode(errors='replace')}")


# -- I5, I6: processes and locks ---------------------------------------------------------------------------------------


def processes(home: Path, *, besides: int = 0) -> dict[int, str]:
    """Return pid to command line of every process (but `besides` and this one) that works on the home.

    That is one with the home in its arguments, its working directory or its LLAMA_MGR_HOME.
    """
    mark = os.fsencode(os.path.realpath(home))
    variable = b"LLAMA_MGR_HOME=" + mark + b"\0"
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in {os.getpid(), besides}:
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            directory = os.fsencode((entry / "cwd").readlink())
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        works = mark + b"/" in command or directory == mark or directory.startswith(mark + b"/") or variable in environ
        if command and works:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:300]
    return found


def still_working(home: Path, within_s: float) -> dict[int, str]:
    """Return the processes that work on the home even after `within_s` seconds (I5)."""
    deadline = time.monotonic() + within_s
    while (left := processes(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _locks(home: Path) -> Iterator[str]:
    for path in sorted([*home.glob("locks/*.lock"), *home.glob("staging/*/.alive")]):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield f"I6 {path}: it is held, and no process works on this home"
        finally:
            os.close(descriptor)


# -- I9: leftovers -----------------------------------------------------------------------------------------------------


def leftovers(home: Path) -> dict[str, list[str]]:
    """Return what interrupted operations left behind, by kind."""
    names = instance_names(home)
    places = ("", "instances", "instances/*", "builds", "bin", "locks", "source", "source/*.git", "environments")
    return {
        "staging": [str(path) for path in sorted(home.glob("staging/*"))],
        "trash": [str(path) for path in sorted(home.glob("trash/*"))],
        "temporary": sorted({str(path) for place in places for path in home.glob(f"{place}/.*.tmp".lstrip("/"))}),
        "instance": [str(path) for path in home.glob("instances/*/") if path.name not in names],
        "git": [
            str(path)
            for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*", "worktrees/*")
            for path in home.glob(f"source/*.git/{pattern}")
        ],
    }


def _leftovers(home: Path, allowed: int) -> list[str]:
    bounds = dict.fromkeys(leftovers(home), allowed) | {"git": _GIT_LEFTOVERS}
    return [
        f"I9 {len(paths)} leftovers of kind {kind}, {bounds[kind]} allowed: {', '.join(paths[:4])}"
        for kind, paths in leftovers(home).items()
        if len(paths) > bounds[kind]
    ]


# -- I8: outside -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outside:
    """A snapshot of everything below some directories but what lies below the homes."""

    roots: tuple[Path, ...]
    homes: tuple[Path, ...]
    seen: dict[str, tuple[int, int, int, str]]

    @classmethod
    def of(cls, *roots: Path, homes: tuple[Path, ...]) -> "Outside":
        """Look at everything now."""
        return cls(roots, homes, {path: facts for root in roots for path, facts in _facts(root, homes)})

    def changes(self) -> list[str]:
        """Return what was written, changed or removed since."""
        now = Outside.of(*self.roots, homes=self.homes).seen
        return [
            f"I8 {path}: {'appeared' if path not in self.seen else 'vanished' if path not in now else 'changed'}"
            for path in sorted(self.seen.keys() | now.keys())
            if self.seen.get(path) != now.get(path)
        ]


def _facts(root: Path, homes: tuple[Path, ...]) -> Iterator[tuple[str, tuple[int, int, int, str]]]:
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if Path(directory, name) not in homes]
        for name in [*names, *files]:
            path = Path(directory, name)
            found = path.lstat()
            is_dir = stat.S_ISDIR(found.st_mode)
            target = str(path.readlink()) if path.is_symlink() else ""
            yield str(path), (found.st_mode, 0 if is_dir else found.st_size, 0 if is_dir else found.st_mtime_ns, target)


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Check what llama-mgr left on disk.")
    parser.add_argument("home", type=Path)
    parser.add_argument("--settled", action="store_true", help="allow no leftovers of interrupted operations")
    options = parser.parse_args()
    found = violations(options.home.resolve(), settled=options.settled)
    print("\n".join(found) if found else "every statement holds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
