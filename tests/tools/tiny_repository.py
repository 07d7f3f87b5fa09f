"""Local git repositories of the tiny projects: llama.cpp's branches, tags and build numbers in half a second."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

PROJECTS_DIR = Path(__file__).resolve().parent.parent / "projects"
TINY_DIR = PROJECTS_DIR / "tiny"
TINY_2024_DIR = PROJECTS_DIR / "tiny-2024"

_AUTHOR = "Tiny <tiny@example.invalid>"
_FIRST_SECOND = 1_700_000_000
_SECONDS_PER_COMMIT = 60
_MADE_WHILE_BUILDING = frozenset({"common/build-info.cpp"})

Tree = dict[str, tuple[str, bytes]]
"""Path to (git mode, content)."""


@dataclass(frozen=True)
class TinyRepository:
    """A bare repository on this disk, its file:// URL, and the commit of every branch, tag and pull request by name."""

    path: Path
    url: str
    commits: Mapping[str, str]


@dataclass(frozen=True)
class _Edit:
    """One replacement in one file; the old text must be there exactly once."""

    file: str
    old: str
    new: str


_NEWER_QUANTIZE = _Edit(
    "tools/quantize/quantize.c",
    '    { "Q2_0",      41, " 2.25 bpw quantization (group 64)" },\n',
    "",
)
_NEWER_SERVER = _Edit(
    "tools/server/server.c",
    '    { "--no-warmup", NULL, "skip warming up the model with an empty run", NULL },\n',
    "",
)
_FEATURE = _Edit(
    "tools/server/server.c",
    '    { "--no-warmup", NULL,',
    '    { "--feature-x", NULL, "the feature of branch feature-x", NULL },\n    { "--no-warmup", NULL,',
)
_PULL_REQUEST = _Edit(
    "tools/server/server.c",
    '    { "--no-warmup", NULL,',
    '    { "--from-pull-123", NULL, "what pull request 123 adds", NULL },\n    { "--no-warmup", NULL,',
)
_DOES_NOT_COMPILE = _Edit(
    "tools/quantize/quantize.c",
    "int llama_quantize(int argc, char ** argv) {\n",
    "int llama_quantize(int argc, char ** argv) {\n    this is not C;\n",
)
_DOES_NOT_CONFIGURE = _Edit(
    "CMakeLists.txt",
    "set(GGML_BUILD_NUMBER ${LLAMA_BUILD_NUMBER})\n",
    'message(FATAL_ERROR "Could NOT find Tiny (missing: TINY_LIBRARY TINY_INCLUDE_DIR)")\n',
)
_DOES_NOT_RUN = _Edit(
    "tools/server/main.c",
    '#include "common.h"\n\nint main(int argc, char ** argv) {\n',
    '#include "common.h"\n\n#include <stdlib.h>\n#include <string.h>\n\nint main(int argc, char ** argv) {\n'
    '    if (argc > 1 && strcmp(argv[1], "--version") == 0) {\n        abort();\n    }\n',
)


def make_tiny_repository(target: Path, *, broken: bool = False) -> TinyRepository:
    """Make a bare repository at target, which must not exist, with the history of a small llama.cpp.

    Build numbers are real: `git rev-list --count b11434` says 11434. The names in `commits`: `b11401`, `v0.6.0` (an
    annotated tag on build 11420), `b11434`, `master` (the same commit), `feature-x` and `pull/123` (each one commit
    after b11434). With broken, master goes on to `b11440` (does not compile), `b11441` (does not configure) and
    `b11442` (its llama-server dies of --version). Every call makes the same commits.
    """
    newest = _read_tree(TINY_DIR)
    oldest = _edited(newest, _NEWER_QUANTIZE, _NEWER_SERVER)
    history = _History()
    history.fill("master", 11400, oldest)
    history.tag("b11401", history.commit("master", oldest, "quantize : prepare the release"))
    history.fill("master", 11419)
    release = history.commit("master", _edited(newest, _NEWER_SERVER), "quantize : add Q2_0")
    history.annotated_tag("v0.6.0", release)
    history.fill("master", 11433)
    last = history.commit("master", newest, "server : add --no-warmup")
    history.tag("b11434", last)
    history.branch("refs/heads/feature-x", last, _edited(newest, _FEATURE), "server : try feature x")
    history.branch("refs/pull/123/head", last, _edited(newest, _PULL_REQUEST), "server : what a stranger wants")
    if broken:
        history.fill("master", 11439)
        for tag, edit in (("b11440", _DOES_NOT_COMPILE), ("b11441", _DOES_NOT_CONFIGURE), ("b11442", _DOES_NOT_RUN)):
            history.tag(tag, history.commit("master", _edited(newest, edit), f"break {tag}"))
    return _write(target, history)


def make_fork_repository(target: Path) -> TinyRepository:
    """Make a bare repository at target of a fork that stayed at b3600; `commits` has `b3600`, `master` and `fork-x`."""
    tree = _read_tree(TINY_2024_DIR)
    history = _History()
    history.fill("master", 3599, tree)
    last = history.commit("master", tree, "server : the last commit before the summer")
    history.tag("b3600", last)
    history.branch("refs/heads/fork-x", last, tree, "the fork's own work")
    return _write(target, history)


def run_git(*arguments: str, cwd: Path | None = None, stdin: bytes | None = None) -> str:
    """Run git untouched by the user's configuration and environment; what it prints, without the last newline."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    done = subprocess.run(["git", *arguments], cwd=cwd, input=stdin, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        message = f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}"
        raise RuntimeError(message)
    return done.stdout.decode().rstrip("\n")


class _History:
    """A git fast-import stream under construction."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._marks = 0
        self._counts: dict[str, int] = {}
        self._tips: dict[str, int] = {}
        self._blobs: dict[bytes, int] = {}

    def stream(self) -> bytes:
        """Everything so far, ready for git fast-import."""
        return b"".join(self._parts)

    def fill(self, branch: str, count: int, tree: Tree | None = None) -> None:
        """Add commits that change nothing (the first one takes tree) until the branch has count of them."""
        if tree is not None:
            self.commit(branch, tree, "a long time ago")
        while self._counts[branch] < count:
            self._add_commit(f"refs/heads/{branch}", branch, None, "more of the same", ())

    def commit(self, branch: str, tree: Tree, message: str) -> int:
        """Add a commit with exactly this tree to the branch; its mark."""
        lines = self._tree_lines(tree)
        return self._add_commit(f"refs/heads/{branch}", branch, None, message, lines)

    def branch(self, ref: str, parent: int, tree: Tree, message: str) -> int:
        """Start a ref with one commit after parent, the tip of master; its mark."""
        self._counts[ref] = self._counts["master"]
        lines = self._tree_lines(tree)
        return self._add_commit(ref, ref, parent, message, lines)

    def tag(self, name: str, mark: int) -> None:
        """Put a lightweight tag on a commit."""
        self._parts.append(f"reset refs/tags/{name}\nfrom :{mark}\n\n".encode())

    def annotated_tag(self, name: str, mark: int) -> None:
        """Put a tag object on a commit."""
        self._parts.append(f"tag {name}\nfrom :{mark}\ntagger {_AUTHOR} {_FIRST_SECOND} +0000\n".encode() + _data(name))

    def _add_commit(self, ref: str, counter: str, parent: int | None, message: str, lines: Sequence[str]) -> int:
        self._marks += 1
        count = self._counts.get(counter, 0) + 1
        seconds = _FIRST_SECOND + count * _SECONDS_PER_COMMIT
        signature = f"{_AUTHOR} {seconds} +0000"
        head = f"commit {ref}\nmark :{self._marks}\nauthor {signature}\ncommitter {signature}\n"
        self._parts += [head.encode(), _data(message)]
        previous = parent if parent is not None else self._tips.get(counter)
        if previous is not None:
            self._parts.append(f"from :{previous}\n".encode())
        self._parts += ["".join(lines).encode(), b"\n"]
        self._counts[counter] = count
        self._tips[counter] = self._marks
        return self._marks

    def _tree_lines(self, tree: Tree) -> list[str]:
        lines = [f"M {mode} :{self._blob(data)} {name}\n" for name, (mode, data) in sorted(tree.items())]
        return ["deleteall\n", *lines]

    def _blob(self, data: bytes) -> int:
        if data not in self._blobs:
            self._marks += 1
            self._blobs[data] = self._marks
            self._parts += [f"blob\nmark :{self._marks}\n".encode(), _data(data)]
        return self._blobs[data]


def _data(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return b"data %d\n%s\n" % (len(raw), raw)


def _read_tree(project_dir: Path) -> Tree:
    tree: Tree = {}
    for file in sorted(project_dir.rglob("*")):
        name = file.relative_to(project_dir).as_posix()
        if not file.is_file() or "__pycache__" in file.parts or name in _MADE_WHILE_BUILDING:
            continue
        tree[name] = ("100755" if file.stat().st_mode & 0o100 else "100644", file.read_bytes())
    return tree


def _edited(tree: Tree, *edits: _Edit) -> Tree:
    result = dict(tree)
    for edit in edits:
        mode, data = result[edit.file]
        text = data.decode()
        if text.count(edit.old) != 1:
            message = f"{edit.file} no longer has this text once: {edit.old!r}"
            raise ValueError(message)
        result[edit.file] = (mode, text.replace(edit.old, edit.new).encode())
    return result


def _write(target: Path, history: _History) -> TinyRepository:
    if target.exists():
        message = f"{target} exists already"
        raise FileExistsError(message)
    run_git("init", "--quiet", "--bare", "--initial-branch=master", str(target))
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        run_git("config", key, "true", cwd=target)
    run_git("fast-import", "--quiet", cwd=target, stdin=history.stream())
    return TinyRepository(target, target.resolve().as_uri(), MappingProxyType(_commits(target)))


def _commits(repository_dir: Path) -> dict[str, str]:
    commits: dict[str, str] = {}
    listing = run_git("for-each-ref", "--format=%(refname)|%(objectname)|%(*objectname)", cwd=repository_dir)
    for line in listing.splitlines():
        ref, commit, peeled = line.split("|")
        name = ref.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("refs/").removesuffix("/head")
        commits[name] = peeled or commit
    return commits
