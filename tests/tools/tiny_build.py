"""Real builds of the tiny projects, made by the product's own CMake object."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llama_mgr.build.cmake import CMake
from llama_mgr.build.recipe_file import Failure
from llama_mgr.process import child_environ
from llama_mgr.report import SilentReporter, Unit

RPATH = {"CMAKE_BUILD_WITH_INSTALL_RPATH": "ON", "CMAKE_INSTALL_RPATH": "$ORIGIN;$ORIGIN/../lib"}


def program(name: str) -> Path:
    """The cmake, ninja or ccache beside the interpreter, else the one on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else Path(shutil.which(name) or name)
    return found.absolute()


@dataclass
class Bar:
    """A progress bar that remembers."""

    updates: list[tuple[int, int | None, str]] = field(default_factory=list)

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        self.updates.append((done, total, detail))


class Watched(SilentReporter):
    """A reporter that keeps its bars."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, Unit, Bar]] = []

    @contextmanager
    def progress(self, title: str, total: int | None, unit: Unit) -> Iterator[Bar]:  # noqa: ARG002
        bar = Bar()
        self.bars.append((title, unit, bar))
        yield bar


@dataclass
class TinyBuild:
    """A copy of a tiny project, its build directory and its log below `place`."""

    place: Path
    project: Path
    failures: Sequence[Failure] = ()
    extra_environ: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source_dir = self.place / "source"
        self.build_dir = self.place / "build"
        self.log_file = self.place / "build.log"
        self.reporter = Watched()
        if not self.source_dir.exists():
            shutil.copytree(self.project, self.source_dir)

    @contextmanager
    def cmake(self) -> Iterator[CMake]:
        """The CMake object, its log open for as long as the context is."""
        environ = child_environ({"PATH": os.environ["PATH"]}, **self.extra_environ)
        with self.log_file.open("ab") as log:
            yield CMake(
                program("cmake"), program("ninja"), self.source_dir, self.build_dir, environ, log, self.reporter,
                label="b11434", failures=self.failures,
            )  # fmt: skip

    def made(self, targets: Sequence[str], defines: Mapping[str, str]) -> str:
        """Configure and build; returns what configure said."""
        with self.cmake() as cmake:
            said = cmake.configure({"LLAMA_BUILD_NUMBER": "11434", **RPATH, **defines})
            cmake.build(targets, 2)
        return said
