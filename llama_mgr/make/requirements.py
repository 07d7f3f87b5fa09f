"""What a llama.cpp tree's converter needs of Python, read from the tree's own requirement files."""

import hashlib
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import BadInputError, IncompleteSourceError, RefusedError
from llama_mgr.store import read_bounded

# Both names in use so far: the dashed one up to b3297, the other one since.
_FILES = ("requirements/requirements-convert_hf_to_gguf.txt", "requirements/requirements-convert-hf-to-gguf.txt")
_FILE_LIMIT_BYTES = 256 * 1024
_DEPTH_LIMIT = 8

_INCLUDE = re.compile(r"(?:-r\s*|--requirement[\s=]+)(\S+)")
# Where packages come from is the user's choice (uv's settings), never the tree's.
_INDEX_OPTION = re.compile(
    r"(?:-i|-f|--(?:extra-)?index-url|--find-links|--no-index|--trusted-host|--pre|--prefer-binary)\b"
)
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<extras>\[[\w, .-]*\])?(?P<version>[^;@/\\]*)(?P<marker>;.*)?"
)
_VERSION = re.compile(r"(?:(?:[<>=!~]=|===|[<>])[A-Za-z0-9.*+!_-]+)(?:,(?:[<>=!~]=|===|[<>])[A-Za-z0-9.*+!_-]+)*")


@dataclass(frozen=True)
class Requirement:
    """One line: `name` in lower case with dashes, `version` like `~=2.2.6` or empty, `marker` with its semicolon."""

    name: str
    version: str = ""
    extras: str = ""
    marker: str = ""

    @property
    def line(self) -> str:
        """The line as uv reads it."""
        return f"{self.name}{self.extras}{self.version}{self.marker}"


@dataclass(frozen=True)
class Requirements:
    """A normalised set of requirements for one kind of interpreter; equal sets have equal digests (64 hex digits)."""

    items: tuple[Requirement, ...]
    python_tag: str
    digest: str

    @property
    def names(self) -> frozenset[str]:
        """The names of all required packages."""
        return frozenset(item.name for item in self.items)


def read_requirements(convert_dir: Path, file_name: str | None = None) -> Requirements:
    """Return what the converter in `convert_dir` requires, for the running interpreter.

    Index options are dropped, includes are followed inside `convert_dir` only.

    Args:
        convert_dir: the converter's directory.
        file_name: its requirement file, relative to `convert_dir`; None looks for the known names.

    Raises:
        IncompleteSourceError: the tree has no requirement file for its converter.
        RefusedError: a file includes something outside the tree, or names a place instead of a package.
        BadInputError: a line is not a requirement.
    """
    for name in _FILES if file_name is None else (file_name,):
        if (convert_dir / name).is_file():
            return requirement_set(_read(convert_dir.resolve(), (convert_dir / name).resolve(), _DEPTH_LIMIT))
    raise IncompleteSourceError(
        "cannot make a converter environment for", convert_dir, f"it has no {file_name or _FILES[0]}",
        hint="this source ships without its converter: install a version from git",
    )  # fmt: skip


def requirement_set(lines: list[str]) -> Requirements:
    """Return the normalised set of requirement `lines` for the running interpreter.

    Raises:
        RefusedError: a line names a place instead of a package.
        BadInputError: a line is not a requirement.
    """
    items = tuple(sorted({_requirement(line) for line in lines}, key=lambda item: item.line))
    python_tag = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    content = "\n".join([python_tag, *(item.line for item in items)])
    return Requirements(items, python_tag, hashlib.sha256(content.encode()).hexdigest())


def _read(root: Path, file: Path, depth: int) -> list[str]:
    if not file.is_relative_to(root) or depth == 0:
        raise RefusedError("cannot read requirements from", file, f"it is not within {root}, or includes go in circles")
    text = read_bounded(file, _FILE_LIMIT_BYTES).decode("utf-8", "replace").replace("\\\n", " ")
    lines: list[str] = []
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        include = _INCLUDE.fullmatch(line)
        if include:
            lines += _read(root, (file.parent / include[1]).resolve(), depth - 1)
        elif line and not _INDEX_OPTION.match(line):
            lines.append(line)
    return lines


def _requirement(line: str) -> Requirement:
    found = _LINE.fullmatch(line)
    if found is None or line.startswith("-"):
        raise RefusedError("cannot use the requirement", line, "only plain package requirements are taken from a tree")
    version = re.sub(r"\s*([<>=!~,]+)\s*", r"\1", found["version"]).strip("() \t")
    if version and not _VERSION.fullmatch(version):
        raise BadInputError("cannot use the requirement", line, "its version is not one that Python packages have")
    name = re.sub(r"[-_.]+", "-", found["name"]).lower()
    marker = f" ; {found['marker'].lstrip('; ').strip()}" if found["marker"] else ""
    return Requirement(name, version, found["extras"] or "", marker)
