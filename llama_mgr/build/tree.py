"""A source tree as recipes see it: which files it has, what they say, and which CMake options it declares.

Nothing is configured and nothing runs: a tree may be a directory, or a commit whose files were never checked out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

TEXT_LIMIT_BYTES = 8 * 1024 * 1024

_BACKENDS = (
    "blas", "cann", "cpu", "cuda", "et", "hexagon", "hip", "kompute", "metal", "musa", "opencl", "openvino", "rpc",
    "sycl", "virtgpu", "vulkan", "webgpu", "zdnn", "zendnn",
)  # fmt: skip
OPTION_FILES = (
    "CMakeLists.txt",
    "app/CMakeLists.txt",
    "common/CMakeLists.txt",
    "examples/server/CMakeLists.txt",
    "ggml/CMakeLists.txt",
    "ggml/src/CMakeLists.txt",
    "tools/CMakeLists.txt",
    "tools/server/CMakeLists.txt",
    "tools/ui/CMakeLists.txt",
    "vendor/cpp-httplib/CMakeLists.txt",
    *(f"ggml/src/ggml-{backend}/CMakeLists.txt" for backend in _BACKENDS),
)
"""Every CMake file that declares an option in some era."""

_COMMENT = re.compile(r"#\[(=*)\[.*?\]\1\]|#[^\n]*", re.DOTALL)
_DECLARATIONS = (
    re.compile(r"\b(?:cmake_dependent_)?option\s*\(\s*([A-Za-z_]\w*)", re.IGNORECASE),
    # The type is what makes a cache variable a user's: INTERNAL ones are CMake's notes to itself.
    re.compile(r"\bset\s*\(\s*([A-Za-z_]\w*)\s[^()]*?\bCACHE\s+(?:BOOL|STRING|PATH|FILEPATH)\b", re.IGNORECASE),
)


class Tree(Protocol):
    """The files of one version of llama.cpp, named by paths with `/` relative to its top directory."""

    def read(self, path: str) -> str | None:
        """Return the text of the file `path`, or None when there is none. Undecodable bytes are replaced."""

    def has(self, path: str) -> bool:
        """Tell whether the tree has the file or directory `path`."""


class DirectoryTree:
    """The tree in a directory. Paths that would leave it, also by a link, count as absent."""

    def __init__(self, root: Path) -> None:
        """Look at `root`; nothing is read before the first question."""
        self.root = root
        self._resolved_root = root.resolve()

    def read(self, path: str) -> str | None:
        """Return the text of the file `path` (its first 8 MiB), or None when there is none or it is unreadable."""
        place = self._place(path)
        if place is None or not place.is_file():
            return None
        try:
            with place.open("rb") as file:
                return file.read(TEXT_LIMIT_BYTES).decode("utf-8", "replace")
        except OSError:
            return None

    def has(self, path: str) -> bool:
        """Tell whether the directory has the file or directory `path`."""
        return self._place(path) is not None

    def _place(self, path: str) -> Path | None:
        try:
            place = (self.root / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return None
        return place if place.is_relative_to(self._resolved_root) else None


_declared: "WeakKeyDictionary[Tree, frozenset[str]]" = WeakKeyDictionary()


def declared_options(tree: Tree) -> frozenset[str]:
    """Return the names that `tree` declares by `option()`, `cmake_dependent_option()` or `set(… CACHE …)`.

    Names that upstream only mentions, such as those it warns about (`llama_option_depr(WARNING LLAMA_CUDA …)`), are not
    declared. The answer is kept as long as the tree object lives.
    """
    known = _declared.get(tree)
    if known is None:
        known = frozenset(name for path in OPTION_FILES for name in _names_in(tree.read(path) or ""))
        _declared[tree] = known
    return known


def _names_in(text: str) -> Iterator[str]:
    plain = _COMMENT.sub("", text)
    for declaration in _DECLARATIONS:
        for found in declaration.finditer(plain):
            yield found[1]
