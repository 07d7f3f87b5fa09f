"""Archives made to hurt: each is refused for its own reason, and leaves nothing."""

import struct
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.build.archive import extract_tar
from llama_mgr.errors import IntegrityError, LlamaMgrError, RefusedError
from tests.tools.tar_archive import TOP, entry, inside, links, packed, tar_bytes


def _sparse() -> bytes:
    header, content = inside("sparse", b"x" * 512, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"})
    return tar_bytes((header, content))


def _size_clash() -> bytes:
    header, content = inside("clash", b"y" * 1024)
    header.pax_headers = {"size": "512"}
    return tar_bytes((header, content), inside("after"))


def _negative_size() -> bytes:
    raw = bytearray(tar_bytes(inside("a")))
    return _with_size_field(raw, b"\xff" * 12)


def _huge_size() -> bytes:
    raw = bytearray(tar_bytes(inside("a")))
    return _with_size_field(raw, b"\x80" + b"\0" * 3 + struct.pack(">Q", 2**60))


def _with_size_field(raw: bytearray, field: bytes) -> bytes:
    raw[124:136] = field
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def _long_pax() -> bytes:
    header, content = inside("a")
    header.pax_headers = {"comment": "c" * 100_000}
    return tar_bytes((header, content))


def _nested_pax() -> bytes:
    return tarfile.TarInfo._create_pax_generic_header({"comment": "c"}, tarfile.XHDTYPE, "utf-8") * 3000  # type: ignore[attr-defined, no-any-return]


def _raw_name(name: bytes) -> bytes:
    raw = bytearray(tar_bytes(inside("placeholder"), form=tarfile.USTAR_FORMAT))
    raw[0:100] = name.ljust(100, b"\0")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def _pax_name(name: str) -> bytes:
    header, content = inside("placeholder")
    header.pax_headers = {"path": name}
    return tar_bytes((header, content))


# What is said of it, and the archives of which it is said.
REFUSED: dict[str, dict[str, Callable[[], bytes]]] = {
    "is absolute or empty": {
        "absolute name": lambda: tar_bytes(entry("/llama-mgr-canary")),
        "absolute name in a pax header": lambda: _pax_name("/llama-mgr-canary"),
        "empty name": lambda: _raw_name(b""),
    },
    "would leave its directory": {
        "dot-dot at the start": lambda: tar_bytes(entry("../canary")),
        "dot-dot inside": lambda: tar_bytes(inside("../../../canary")),
        "dot-dot at the end": lambda: tar_bytes(inside("a/..", b"", tarfile.DIRTYPE)),
        "dot-dot in a pax header": lambda: _pax_name(f"{TOP}/src/../../../canary"),
        "empty part": lambda: tar_bytes(inside("a//b")),
    },
    "holds a backslash, a control character or bytes that are not UTF-8": {
        "backslashes": lambda: tar_bytes(inside("..\\..\\canary")),
        "a drive": lambda: tar_bytes(inside("a\\b")),
        "NUL in a pax header": lambda: _pax_name(f"{TOP}/src/a\0b"),
        "newline": lambda: tar_bytes(inside("a\nb")),
        "escape sequence": lambda: tar_bytes(inside("a\x1b[2Jb")),
        "not UTF-8": lambda: _raw_name(f"{TOP}/src/".encode() + b"\xff\xfe"),
    },
    "has no name": {
        "only a dot": lambda: tar_bytes(entry(".", b"")),
    },
    "is too long": {
        "long part": lambda: tar_bytes(inside("n" * 300)),
        "long path": lambda: tar_bytes(inside("/".join(["directory"] * 200))),
    },
    "more than one top directory": {
        "second top directory": lambda: tar_bytes(inside("a"), entry("other-1.0/src/a")),
    },
    "is a link to something outside its directory": {
        "link to an absolute path": lambda: tar_bytes(*links(("a", "/etc/passwd"))),
        "link upwards": lambda: tar_bytes(*links(("a", "../../canary"))),
        "link to dot-dot": lambda: tar_bytes(*links(("a", ".."))),
        "link to dot": lambda: tar_bytes(*links(("a", "."))),
        "link to a sub-directory": lambda: tar_bytes(*links(("a", "b/c"))),
        "link with a backslash": lambda: tar_bytes(*links(("a", "..\\x"))),
        "link to nothing": lambda: tar_bytes(*links(("a", ""))),
    },
    "'a' is a link and a directory": {
        "writing through a link": lambda: tar_bytes(*links(("a", "b")), inside("a/canary")),
    },
    "'a' is a file and a directory": {
        "file below a file": lambda: tar_bytes(inside("a"), inside("a/b")),
    },
    "it has 'a' twice": {
        "writing over a link": lambda: tar_bytes(*links(("a", "b")), inside("a")),
        "directory over a link": lambda: tar_bytes(
            *links(("a", "b")), inside("a", b"", tarfile.DIRTYPE), inside("a/c")
        ),
        "same name twice": lambda: tar_bytes(inside("a", b"1"), inside("a", b"2")),
        "same name twice, spelled differently": lambda: tar_bytes(inside("a", b"1"), inside("./a", b"2")),
        "file over a directory": lambda: tar_bytes(inside("a/b"), inside("a")),
        "directory over a file": lambda: tar_bytes(inside("a"), inside("a", b"", tarfile.DIRTYPE)),
    },
    "is neither a file, a directory nor a symbolic link": {
        "hard link": lambda: tar_bytes(inside("a"), *links(("b", f"{TOP}/src/a"), kind=tarfile.LNKTYPE)),
        "hard link outside": lambda: tar_bytes(*links(("b", "/etc/passwd"), kind=tarfile.LNKTYPE)),
        "character device": lambda: tar_bytes(inside("a", b"", tarfile.CHRTYPE)),
        "block device": lambda: tar_bytes(inside("a", b"", tarfile.BLKTYPE)),
        "pipe": lambda: tar_bytes(inside("a", b"", tarfile.FIFOTYPE)),
        "contiguous file": lambda: tar_bytes(inside("a", b"x", tarfile.CONTTYPE)),
        "unknown type": lambda: tar_bytes(inside("a", b"", b"Z")),
    },
    "is setuid or setgid": {
        "setuid": lambda: tar_bytes(inside("a", mode=0o4755)),
        "setgid": lambda: tar_bytes(inside("a", mode=0o2755)),
    },
    "which readers understand differently": {
        "sparse file": _sparse,
        "sizes that disagree": _size_clash,
    },
    "a header has 98.0 KiB": {
        "oversized extended header": _long_pax,
    },
}
DAMAGED: dict[str, dict[str, Callable[[], bytes]]] = {
    "it ends inside a member": {
        "enormous size": _huge_size,
        "cut inside a file": lambda: tar_bytes(inside("a", b"a" * 5000))[:2048],
    },
    "it is damaged": {
        "extended headers without end": _nested_pax,
        "no end mark": lambda: tar_bytes(inside("a"))[:1024],
        "cut inside a header": lambda: tar_bytes(inside("a"), inside("b"))[:1300],
        "damaged second header": lambda: tar_bytes(inside("a")).replace(b"\0" * 512, b"\x01" * 512, 1),
        "no tar at all": lambda: b"this is not a tar file" * 100,
        "no bytes": lambda: b"",
    },
    "more than 200 times its size": {
        "zeros without end": lambda: tar_bytes(inside("a", b"\0" * 40_000_000)),
    },
    "more than the limit of 20000 members": {
        "too many members": lambda: tar_bytes(*(inside(f"f{number}", b"") for number in range(20_001))),
    },
    "something follows its end mark": {
        "a second archive behind the first": lambda: tar_bytes(inside("a")) + tar_bytes(inside("b")),
    },
    "it has no 'src'": {
        "nothing in it": tar_bytes,
        "nothing at the place asked for": lambda: tar_bytes(entry(f"{TOP}/elsewhere/a")),
        "a file at the place asked for": lambda: tar_bytes(entry(f"{TOP}/src")),
    },
}
HOSTILE = [
    pytest.param(error, why, make, id=name)
    for error, table in ((RefusedError, REFUSED), (IntegrityError, DAMAGED))
    for why, archives in table.items()
    for name, make in archives.items()
]


@pytest.mark.parametrize(("error", "why", "make"), HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    error: type[LlamaMgrError], why: str, make: Callable[[], bytes], tmp_path: Path
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    archive = packed(tmp_path / "hostile.tar.gz", make())
    started_s = time.process_time()

    with pytest.raises(error) as caught:
        extract_tar(archive, room / "out", "src")

    assert why in caught.value.message
    assert time.process_time() - started_s < 5
    assert list(room.iterdir()) == []
    assert not Path("/llama-mgr-canary").exists()
    assert caught.value.message.isprintable()


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "hostile.tar.gz", _negative_size())
    # Some releases of Python 3.11 find it themselves, and call the archive damaged.
    with pytest.raises((RefusedError, IntegrityError), match=r"has a negative size|it is damaged"):
        extract_tar(archive, tmp_path / "out", "src")
    assert not (tmp_path / "out").exists()
