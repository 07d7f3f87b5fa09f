"""The rules of docs/architecture.md, "Rooms and arrows", checked on every file of the package by reading its syntax.

Each rule is a function from one parsed file to the lines that break it; `test_rule_catches` plants a violation of each.
"""

import ast
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "llama_mgr"

ROOMS: dict[str, frozenset[str]] = {
    "build": frozenset(),
    "models": frozenset(),
    "instances": frozenset({"build"}),
    "make": frozenset({"build", "instances", "models"}),
    "serving": frozenset({"build", "instances", "models"}),
    "api": frozenset({"serving", "models"}),
    "daemon": frozenset({"api", "serving", "models"}),
}
"""Room to the other rooms that it may import; `cli` may import all, everybody may import the foundation."""

DOORS: dict[str, tuple[str, ...]] = {
    "subprocess": ("process.py",),
    "git": ("build/git_program.py",),
    "requests": ("http_session.py",),
    "pypi_simple": ("package_index.py",),
    "huggingface_hub": ("models/hub.py", "models/hub_writer.py"),
    "httpx2": ("models/hub.py",),
    "matplotlib": ("make/plot.py",),
    "starlette": ("api/", "daemon/"),
    "uvicorn": ("api/", "daemon/"),
    "click": ("cli/",),
    "rich": ("cli/",),
}
"""Outside module to the only files (or folders) that may import it."""

HEAVY = frozenset({"git", "matplotlib", "requests", "pypi_simple", "huggingface_hub", "rich", "httpx2"})
"""Modules that even their door imports only inside functions, so that `llama-mgr --version` stays fast."""

STARTS_PROCESSES = frozenset(
    {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"}
    | {f"exec{ending}" for ending in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
    | {f"spawn{ending}" for ending in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
)
FILE_LINES_LIMIT = 400
FUNCTION_LINES_LIMIT = 60
USUAL_FUNCTION_LINES = 40
UNUSUAL_SHARE_LIMIT = 0.1


@dataclass(frozen=True)
class File:
    """One Python file of the package: its path below `llama_mgr/` and its text."""

    path: str
    text: str

    @property
    def room(self) -> str | None:
        """The room it lies in; None for the foundation."""
        return self.path.split("/")[0] if "/" in self.path else None

    @property
    def package(self) -> list[str]:
        """The package that relative imports start from."""
        return [PACKAGE, *self.path.split("/")[:-1]]

    @property
    def speaks_for_the_program(self) -> bool:
        """Whether it may print, read the environment and exit."""
        return self.room == "cli" or self.path == "__main__.py"


@dataclass(frozen=True)
class Import:
    """One imported module, absolute."""

    module: str
    line: int
    only_for_types: bool
    inside_function: bool


class _Imports(ast.NodeVisitor):
    def __init__(self, file: File) -> None:
        self.file = file
        self.found: list[Import] = []
        self.functions = 0
        self.type_blocks = 0

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.functions += 1
        self.generic_visit(node)
        self.functions -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 (ast's name)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            self.generic_visit(node)
            return
        self.type_blocks += 1
        for statement in node.body:
            self.visit(statement)
        self.type_blocks -= 1
        for statement in node.orelse:
            self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.file.package[: len(self.file.package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:  # `from llama_mgr import cli` imports a room too
            self._add(f"{module}.{alias.name}", node.lineno)

    def _add(self, module: str, line: int) -> None:
        self.found.append(Import(module, line, self.type_blocks > 0, self.functions > 0))


def imports(file: File) -> list[Import]:
    visitor = _Imports(file)
    visitor.visit(ast.parse(file.text))
    return visitor.found


def arrows(file: File) -> Iterator[str]:
    if file.speaks_for_the_program:
        return
    allowed = frozenset() if file.room is None else ROOMS.get(file.room, frozenset()) | {file.room}
    for one in imports(file):
        parts = one.module.split(".")
        if parts[0] == PACKAGE and parts[1:] and parts[1] in {*ROOMS, "cli"} - allowed:
            yield f"{file.path}:{one.line} {file.room or 'the foundation'} imports {parts[1]}"


def known_rooms(file: File) -> Iterator[str]:
    if file.room is not None and file.room not in {*ROOMS, "cli"}:
        yield f"{file.path}: the room {file.room} is not in docs/architecture.md"


def doors(file: File) -> Iterator[str]:
    for one in imports(file):
        door = DOORS.get(one.module.split(".")[0])
        if door and not one.only_for_types and not file.path.startswith(door):
            yield f"{file.path}:{one.line} imports {one.module}, which only {', '.join(door)} may"


def heavy_imports(file: File) -> Iterator[str]:
    for one in imports(file):
        if one.module.split(".")[0] in HEAVY and not (one.only_for_types or one.inside_function):
            yield f"{file.path}:{one.line} imports {one.module} outside a function"


def process_starts(file: File) -> Iterator[str]:
    if file.path == "process.py":
        return
    for node in ast.walk(ast.parse(file.text)):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        owner, _, method = name.rpartition(".")
        if (owner == "os" and method in STARTS_PROCESSES) or method.startswith("create_subprocess_"):
            yield f"{file.path}:{node.lineno} calls {name}: processes start in process.py only"
    for one in imports(file):
        if one.module.startswith(("os.", "pty", "multiprocessing")) and one.module.split(".")[-1] in {
            *STARTS_PROCESSES,
            "pty",
            "multiprocessing",
        }:
            yield f"{file.path}:{one.line} imports {one.module}: processes start in process.py only"


def quiet_rooms(file: File) -> Iterator[str]:
    if file.speaks_for_the_program:
        return
    for node in ast.walk(ast.parse(file.text)):
        forbidden = _forbidden_in_rooms(node)
        if forbidden:
            yield f"{file.path}:{node.lineno} uses {forbidden}: rooms never print, read the environment or exit"
    for one in imports(file):
        if one.module in {"os.environ", "os.environb", "os.getenv", "os.putenv", "os._exit", "sys.exit"}:
            yield f"{file.path}:{one.line} imports {one.module}: rooms never print, read the environment or exit"


def _forbidden_in_rooms(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
        forbidden = {"os.environ", "os.environb", "os.getenv", "os.putenv", "os._exit", "sys.exit"}
        return name if name in forbidden | {"sys.stdout", "sys.stderr", "sys.argv"} else None
    if isinstance(node, ast.Name) and node.id in {"print", "input", "exit", "quit", "SystemExit", "breakpoint"}:
        return node.id
    return None


def dynamic_imports(file: File) -> Iterator[str]:
    if file.room == "cli":
        return
    for node in ast.walk(ast.parse(file.text)):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name in {"__import__", "importlib.import_module", "import_module"}:
            yield f"{file.path}:{node.lineno} imports by {name}: arrows cannot be checked then"


def file_length(file: File) -> Iterator[str]:
    lines = len(file.text.splitlines())
    if lines > FILE_LINES_LIMIT:
        yield f"{file.path} has {lines} lines, more than {FILE_LINES_LIMIT}"


def function_length(file: File) -> Iterator[str]:
    for name, line, lines in _functions(file):
        if lines > FUNCTION_LINES_LIMIT:
            yield f"{file.path}:{line} {name} has {lines} lines, more than {FUNCTION_LINES_LIMIT}"


def _functions(file: File) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(ast.parse(file.text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


RULES: tuple[Callable[[File], Iterator[str]], ...] = (
    known_rooms,
    arrows,
    doors,
    heavy_imports,
    process_starts,
    quiet_rooms,
    dynamic_imports,
    file_length,
    function_length,
)


@pytest.fixture(scope="module")
def package() -> list[File]:
    root = ROOT / PACKAGE
    files = [File(path.relative_to(root).as_posix(), path.read_text("utf-8")) for path in sorted(root.rglob("*.py"))]
    assert len(files) > 10, "the package was not found"
    return files


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps(rule: Callable[[File], Iterator[str]], package: list[File]) -> None:
    broken = [line for file in package for line in rule(file)]
    assert not broken, "\n".join(broken)


def test_nine_functions_in_ten_are_short(package: list[File]) -> None:
    lengths = [lines for file in package for _, _, lines in _functions(file)]
    long_ones = sum(lines >= USUAL_FUNCTION_LINES for lines in lengths)
    assert long_ones <= UNUSUAL_SHARE_LIMIT * len(lengths)


def test_ruff_knows_every_door() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    banned = settings["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == set(DOORS)


PLANTED = [
    (known_rooms, "helpers/thing.py", ""),
    (arrows, "store.py", "from llama_mgr.build.recipe import Recipe"),
    (arrows, "build/cmake.py", "import llama_mgr.instances.lock"),
    (arrows, "build/cmake.py", "from llama_mgr import cli"),
    (arrows, "build/cmake.py", "from ..models import hub"),
    (arrows, "models/hub.py", "def f():\n    from llama_mgr.build import plan"),
    (arrows, "api/app.py", "from llama_mgr.daemon.daemon import Daemon"),
    (doors, "build/cmake.py", "import subprocess"),
    (doors, "build/cmake.py", "def f():\n    from git.cmd import Git"),
    (doors, "cli/app.py", "import requests.adapters"),
    (doors, "store.py", "try:\n    import click\nexcept ImportError:\n    pass"),
    (doors, "build/cmake.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import subprocess"),
    (heavy_imports, "http_session.py", "import requests"),
    (heavy_imports, "cli/console.py", "class A:\n    from rich.table import Table"),
    (process_starts, "build/cmake.py", "import os\nos.system('true')"),
    (process_starts, "cli/execute.py", "import os\nos.execve('a', [], {})"),
    (process_starts, "serving/launch.py", "from os import posix_spawn"),
    (process_starts, "serving/launch.py", "async def f():\n    await asyncio.create_subprocess_exec('a')"),
    (process_starts, "build/cmake.py", "import multiprocessing"),
    (quiet_rooms, "build/cmake.py", "print('hello')"),
    (quiet_rooms, "report.py", "import os\nx = os.environ.get('HOME')"),
    (quiet_rooms, "build/cmake.py", "from os import environ"),
    (quiet_rooms, "build/cmake.py", "import sys\nsys.stderr.write('x')"),
    (quiet_rooms, "instances/lock.py", "raise SystemExit(3)"),
    (quiet_rooms, "build/cmake.py", "import sys\nsys.exit(1)"),
    (dynamic_imports, "build/cmake.py", "import importlib\nimportlib.import_module('git')"),
    (file_length, "build/cmake.py", "a = 1\n" * (FILE_LINES_LIMIT + 1)),
    (function_length, "build/cmake.py", "def f():\n" + "    a = 1\n" * FUNCTION_LINES_LIMIT),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_rule_catches(rule: Callable[[File], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(File(path, text)))


ALLOWED = [
    ("cli/app.py", "import os, sys, click\nfrom llama_mgr.build import plan\nprint(os.environ)\nsys.exit(0)"),
    ("instances/lock.py", "from llama_mgr.build.record import Builds\nfrom llama_mgr.store import mark"),
    ("process.py", "import os, subprocess\nos.execve('a', [], {})"),
    ("build/cmake.py", "if TYPE_CHECKING:\n    import subprocess\nfrom llama_mgr.build import plan"),
    ("http_session.py", "def f():\n    import requests"),
    ("build/gitlike.py", "from llama_mgr.build import git_program"),
    ("build/cmake.py", "a = 1\n" * FILE_LINES_LIMIT),
    ("build/cmake.py", "def f():\n" + "    a = 1\n" * (FUNCTION_LINES_LIMIT - 1)),
]


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_rules_let_pass(path: str, text: str) -> None:
    assert [line for rule in RULES for line in rule(File(path, text))] == []


def test_no_directory_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    # pytest's own list has `build`, which is a room here
    ignored = pytestconfig.getini("norecursedirs")
    directories = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [path for path in directories if any(fnmatch(path.name, pattern) for pattern in ignored)] == []
