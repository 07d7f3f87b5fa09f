"""Finished builds: the record that each carries, and the collection of all of them on disk."""

import hashlib
import stat
from pathlib import Path
from typing import Annotated

import msgspec

from llama_mgr import staging, store
from llama_mgr.build.capability import Capabilities
from llama_mgr.build.plan import Plan
from llama_mgr.errors import CorruptStateError, IntegrityError, NotFoundError
from llama_mgr.paths import Home, join_below

RECORD_NAME = "build.json"
LOG_NAME = "build.log"
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class FileRecord(msgspec.Struct, frozen=True):
    """One regular file of a build."""

    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Sha256


class BuildRecord(msgspec.Struct, kw_only=True):
    """`build.json`: what a build is, how it was made, and every file in it."""

    build_id: str
    digest: Sha256
    plan: Plan
    made_at: str
    took_s: float
    configure_argv: list[str]
    tools: dict[str, str]
    """Tool to version: cmake, ninja, ccache."""
    cache_hits: Annotated[int, msgspec.Meta(ge=0)]
    cache_misses: Annotated[int, msgspec.Meta(ge=0)]
    programs: dict[str, str]
    """Canonical tool to the file in `bin/`: `{"server": "llama-server"}`."""
    converter: str | None
    """The convert script below `convert/`, or None when the tree has none."""
    converter_requirements: str | None
    """The converter's requirements file below `convert/`; `make.python_env` makes the environment that it asks for."""
    capabilities: Capabilities
    files: dict[str, FileRecord]

    @property
    def size_bytes(self) -> int:
        """The disk space of all files."""
        return sum(file.size_bytes for file in self.files.values())


class Builds:
    """All finished builds below a home. Readers take no lock: a build appears whole, by rename."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def ids(self) -> list[str]:
        """Return the ids of all builds, sorted."""
        if not self._home.builds_dir.is_dir():
            return []
        return sorted(
            entry.name for entry in self._home.builds_dir.iterdir() if entry.is_dir() and not entry.is_symlink()
        )

    def directory(self, build_id: str) -> Path:
        """Return where the build lies; no check that it exists."""
        return join_below(self._home.builds_dir, build_id)

    def find(self, build_id: str) -> BuildRecord:
        """Return the record of a build.

        Raises:
            NotFoundError: there is no such build.
            CorruptStateError: its record is damaged, or names another build.
        """
        record = store.read_document(self.directory(build_id) / RECORD_NAME, "build", BuildRecord)
        if record.build_id != build_id:
            raise CorruptStateError(
                "cannot read",
                self.directory(build_id),
                f"its record names '{record.build_id}'",
                hint="run `llama-mgr doctor`",
            )
        return record

    def with_digest(self, digest: str, *, by_hash: bool = False) -> BuildRecord | None:
        """Return the finished build of a plan with this digest, if its files are all there.

        Args:
            digest: that of the plan.
            by_hash: also compare the sha256 of every file.
        """
        check = self.check_hashes if by_hash else self.check_sizes
        for build_id in self.ids():
            if build_id.endswith(f"-{digest[:8]}"):
                try:
                    record = self.find(build_id)
                    check(record)
                except (NotFoundError, IntegrityError):
                    continue
                if record.digest == digest:
                    return record
        return None

    def check_sizes(self, record: BuildRecord) -> None:
        """Check quickly that every file of the build is there with its recorded size, and that its programs may run.

        Raises:
            IntegrityError: a file is missing or has another size, or a program is not executable. What mends it is for
                the caller to say, who knows whose build it is.
        """
        for name, expected in record.files.items():
            path = self.directory(record.build_id) / name
            if not path.is_file():
                raise IntegrityError("cannot use the build", record.build_id, f"{name} is missing")
            if path.stat().st_size != expected.size_bytes:
                found = path.stat().st_size
                why = f"{name} has {found} bytes, not {expected.size_bytes}"
                raise IntegrityError("cannot use the build", record.build_id, why)
        for program in record.programs.values():
            path = self.directory(record.build_id) / "bin" / program
            # Its mode alone: a whole build on a disk that is mounted noexec would only be made again there.
            if not (path.is_file() and path.stat().st_mode & stat.S_IXUSR):
                raise IntegrityError("cannot use the build", record.build_id, f"bin/{program} is not executable")

    def check_hashes(self, record: BuildRecord) -> None:
        """Check that every file of the build has its recorded sha256.

        Raises:
            IntegrityError: a file differs; both hashes are named. As `check_sizes` otherwise.
        """
        self.check_sizes(record)
        for name, expected in record.files.items():
            found = file_sha256(self.directory(record.build_id) / name)
            if found != expected.sha256:
                why = f"{name} has sha256 {found}, not {expected.sha256}"
                raise IntegrityError("cannot use the build", record.build_id, why)

    def discard(self, build_id: str) -> None:
        """Delete a build; nothing may point at it any more.

        Raises:
            RefusedError: the directory is not one that llama-mgr made.
        """
        staging.discard(self._home, self.directory(build_id), of=build_id)

    def require_ours(self, build_id: str) -> None:
        """Raise a RefusedError when `discard` would refuse to delete this build."""
        staging.require_ours(self._home, self.directory(build_id), of=build_id)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_files(prefix: Path) -> dict[str, FileRecord]:
    """Return size and sha256 of every regular file below `prefix`, by relative name; links are not followed."""
    files = sorted(path for path in prefix.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(prefix).as_posix(): FileRecord(path.stat().st_size, file_sha256(path))
        for path in files
        if path.name != staging.MARKER_NAME
    }
