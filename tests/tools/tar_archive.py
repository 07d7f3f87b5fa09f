"""Source archives, honest or made to hurt, member by member."""

import gzip
import io
import tarfile
from pathlib import Path

TOP = "pkg-1.0"
Entries = list[tuple[tarfile.TarInfo, bytes]]


def entry(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    """One member and its content."""
    header = tarfile.TarInfo(name)
    header.type = kind
    header.size = len(content) if kind in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE} else 0
    header.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(header, field, value)
    return header, content


def inside(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    """One member below the directory that is unpacked."""
    return entry(f"{TOP}/src/{name}", content, kind, **fields)


def tar_bytes(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of these members, not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for header, content in entries:
            tar.addfile(header, io.BytesIO(content) if header.size else None)
    return buffer.getvalue()


def packed(path: Path, raw: bytes) -> Path:
    """Compress an archive into a file."""
    path.write_bytes(gzip.compress(raw, compresslevel=1, mtime=0))
    return path


def links(*pairs: tuple[str, str], kind: bytes = tarfile.SYMTYPE) -> Entries:
    """Links, as pairs of name and target."""
    return [inside(name, b"", kind, linkname=target) for name, target in pairs]
