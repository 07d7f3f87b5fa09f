"""What CMake tells about a configured tree through its file API (cmake-file-api(7)): the cache, targets and inputs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_mgr.errors import ConfigureFailedError, StorageError
from llama_mgr.store import read_bounded, storage_errors

_CLIENT = "client-llama-mgr"
_KINDS = ("cache-v2", "codemodel-v2", "cmakeFiles-v1")
_REPLY_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class CacheEntry:
    """One variable of CMake's cache."""

    type: str
    """`BOOL`, `STRING`, `PATH`, `FILEPATH`, `INTERNAL`, `STATIC`, or `UNINITIALIZED`: given with -D, never declared."""
    value: str
    help: str


@dataclass(frozen=True)
class Input:
    """One file that configure read."""

    path: Path
    of_project: bool
    """It lies in the source tree; otherwise it is a CMake module or a package's configuration."""


def ask(build_dir: Path) -> None:
    """Ask the next configure of `build_dir` for its cache, targets and inputs; makes the directory.

    Raises:
        StorageError: the question cannot be written.
    """
    query_dir = build_dir / ".cmake" / "api" / "v1" / "query" / _CLIENT
    with storage_errors("cannot write", query_dir):
        query_dir.mkdir(parents=True, exist_ok=True)
        for kind in _KINDS:
            (query_dir / kind).touch()


class Reply:
    """The answer of the last configure that succeeded."""

    def __init__(self, build_dir: Path) -> None:
        """Find the newest answer.

        Raises:
            ConfigureFailedError: the tree was never configured, or its CMake is too old to answer.
        """
        self._reply_dir = build_dir / ".cmake" / "api" / "v1" / "reply"
        # cmake-file-api(7): the index that is last in lexicographic order is the current one.
        indexes = sorted(self._reply_dir.glob("index-*.json"))
        if not indexes:
            raise ConfigureFailedError("cannot read what CMake configured in", build_dir, "there is no file API reply")
        self._answers = self._document(indexes[-1].name)["reply"][_CLIENT]

    def cache(self) -> dict[str, CacheEntry]:
        """Return every cache variable by name."""
        entries = self._answer("cache-v2")["entries"]
        return {entry["name"]: CacheEntry(entry["type"], entry["value"], _help(entry)) for entry in entries}

    def targets(self) -> frozenset[str]:
        """Return the names of all targets of the tree that ninja can be asked for."""
        configurations = self._answer("codemodel-v2")["configurations"]
        return frozenset(target["name"] for configuration in configurations for target in configuration["targets"])

    def artifacts(self) -> dict[str, list[Path]]:
        """Return what each target makes, by target name: absolute paths of programs and libraries, built or not."""
        answer = self._answer("codemodel-v2")
        build_dir = Path(answer["paths"]["build"])
        found: dict[str, list[Path]] = {}
        for configuration in answer["configurations"]:
            for target in configuration["targets"]:
                details = self._document(target["jsonFile"])
                if details["type"] in {"EXECUTABLE", "SHARED_LIBRARY", "MODULE_LIBRARY"}:
                    found[target["name"]] = [build_dir / one["path"] for one in details.get("artifacts", [])]
        return found

    def inputs(self) -> list[Input]:
        """Return the CMake files that configure read, without those that it generated itself."""
        answer = self._answer("cmakeFiles-v1")
        source_dir = Path(answer["paths"]["source"])
        return [
            Input(source_dir / found["path"], of_project=not found.get("isExternal", False))
            for found in answer["inputs"]
            if not found.get("isGenerated", False)
        ]

    def _answer(self, kind: str) -> dict[str, Any]:
        return self._document(self._answers[kind]["jsonFile"])

    def _document(self, name: str) -> dict[str, Any]:
        path = self._reply_dir / name
        try:
            document: dict[str, Any] = json.loads(read_bounded(path, _REPLY_LIMIT_BYTES))
        except ValueError as error:
            raise StorageError("cannot read", path, "CMake's reply is not JSON") from error
        return document


def _help(entry: dict[str, Any]) -> str:
    properties = {one["name"]: one["value"] for one in entry.get("properties", [])}
    return str(properties.get("HELPSTRING", ""))
