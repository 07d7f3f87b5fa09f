"""Archives made to hurt, and the honest ones that must still come out whole."""

import gzip
import io
import os
import struct
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_mgr.build.archive import extract_tar
from llama_mgr.build.tar_members import Limits, members
from llama_mgr.errors import IntegrityError, LlamaMgrError, RefusedError

TOP = "pkg-1.0"
Entries = list[tuple[tarfile.TarInfo, bytes]]


def entry(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
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
    return entry(f"{TOP}/src/{name}", content, kind, **fields)


def tar_bytes(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for header, content in entries:
            tar.addfile(header, io.BytesIO(content) if header.size else None)
    return buffer.getvalue()


def packed(path: Path, raw: bytes) -> Path:
    path.write_bytes(gzip.compress(raw, compresslevel=1, mtime=0))
    return path


def links(*pairs: tuple[str, str], kind: bytes = tarfile.SYMTYPE) -> Entries:
    return [inside(name, b"", kind, linkname=target) for name, target in pairs]


def test_an_honest_tree_comes_out_as_it_went_in(tmp_path: Path) -> None:
    long_name = "d" * 90 + "/" + "f" * 150
    archive = packed(
        tmp_path / "a.tar.gz",
        tar_bytes(
            entry(TOP, b"", tarfile.DIRTYPE),
            entry(f"{TOP}/PKG-INFO", b"Name: pkg"),
            entry(f"{TOP}/src", b"", tarfile.DIRTYPE),
            inside("CMakeLists.txt", b"project(x)", mtime=1_700_000_000.75),
            inside("scripts/run.sh", b"#!/bin/sh", mode=0o755),
            inside("empty", b""),
            inside("empty-dir", b"", tarfile.DIRTYPE),
            inside("empty-dir", b"", tarfile.DIRTYPE),
            inside("naïve ünïcode.txt", b"text"),
            inside(long_name, b"long"),
            inside("block", b"b" * 512),
            inside("big", os.urandom(700_000)),
            *links(("lib.so", "lib.so.0")),
            inside("lib.so.0", b"elf"),
        ),
    )

    extract_tar(archive, tmp_path / "out", "src")

    out = tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()) == sorted(
        [
            "CMakeLists.txt",
            "scripts/run.sh",
            "empty",
            "naïve ünïcode.txt",
            long_name,
            "block",
            "big",
            "lib.so",
            "lib.so.0",
        ]
    )
    assert (out / "CMakeLists.txt").read_bytes() == b"project(x)"
    assert (out / "CMakeLists.txt").stat().st_mtime == 1_700_000_000
    assert (out / "CMakeLists.txt").stat().st_mode & 0o777 == 0o644
    assert (out / "scripts/run.sh").stat().st_mode & 0o777 == 0o755
    assert (out / "lib.so").readlink() == Path("lib.so.0")
    assert (out / "empty-dir").is_dir()
    assert (out / "big").stat().st_size == 700_000


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_dialects_of_tar_are_read(tmp_path: Path, form: int) -> None:
    archive = packed(
        tmp_path / "a.tar.gz", tar_bytes(inside("a/b/c", b"content"), inside("d" * 80, b"more"), form=form)
    )

    extract_tar(archive, tmp_path / "out", "src")

    assert (tmp_path / "out/a/b/c").read_bytes() == b"content"
    assert (tmp_path / "out" / ("d" * 80)).read_bytes() == b"more"


def test_what_lies_elsewhere_in_the_archive_is_not_unpacked(tmp_path: Path) -> None:
    raw = tar_bytes(
        entry(f"{TOP}/setup.py", b"raise SystemExit"),
        entry(f"{TOP}/src2/x", b"no"),
        entry(f"{TOP}/other/link", b"", tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry(f"{TOP}/src/deep/x", b"yes"),
    )

    extract_tar(packed(tmp_path / "a.tar.gz", raw), tmp_path / "out", "src/deep")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


def test_leading_dots_in_names_mean_nothing(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", tar_bytes(entry(f"./{TOP}/./src/./a", b"1")))

    extract_tar(archive, tmp_path / "out", "src")

    assert (tmp_path / "out/a").read_bytes() == b"1"


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


HOSTILE: dict[str, Callable[[], bytes]] = {
    "absolute name": lambda: tar_bytes(entry("/llama-mgr-canary")),
    "absolute name in a pax header": lambda: _pax_name("/llama-mgr-canary"),
    "dot-dot at the start": lambda: tar_bytes(entry("../canary")),
    "dot-dot inside": lambda: tar_bytes(inside("../../../canary")),
    "dot-dot at the end": lambda: tar_bytes(inside("a/..", b"", tarfile.DIRTYPE)),
    "dot-dot in a pax header": lambda: _pax_name(f"{TOP}/src/../../../canary"),
    "backslashes": lambda: tar_bytes(inside("..\\..\\canary")),
    "a drive": lambda: tar_bytes(inside("a\\b")),
    "NUL in a pax header": lambda: _pax_name(f"{TOP}/src/a\0b"),
    "newline": lambda: tar_bytes(inside("a\nb")),
    "escape sequence": lambda: tar_bytes(inside("a\x1b[2Jb")),
    "not UTF-8": lambda: _raw_name(f"{TOP}/src/".encode() + b"\xff\xfe"),
    "empty part": lambda: tar_bytes(inside("a//b")),
    "empty name": lambda: _raw_name(b""),
    "only a dot": lambda: tar_bytes(entry(".", b"")),
    "long part": lambda: tar_bytes(inside("n" * 300)),
    "long path": lambda: tar_bytes(inside("/".join(["directory"] * 200))),
    "second top directory": lambda: tar_bytes(inside("a"), entry("other-1.0/src/a")),
    "link to an absolute path": lambda: tar_bytes(*links(("a", "/etc/passwd"))),
    "link upwards": lambda: tar_bytes(*links(("a", "../../canary"))),
    "link to dot-dot": lambda: tar_bytes(*links(("a", ".."))),
    "link to dot": lambda: tar_bytes(*links(("a", "."))),
    "link to a sub-directory": lambda: tar_bytes(*links(("a", "b/c"))),
    "link with a backslash": lambda: tar_bytes(*links(("a", "..\\x"))),
    "link to nothing": lambda: tar_bytes(*links(("a", ""))),
    "writing through a link": lambda: tar_bytes(*links(("a", "b")), inside("a/canary")),
    "writing over a link": lambda: tar_bytes(*links(("a", "b")), inside("a")),
    "directory over a link": lambda: tar_bytes(*links(("a", "b")), inside("a", b"", tarfile.DIRTYPE), inside("a/c")),
    "file below a file": lambda: tar_bytes(inside("a"), inside("a/b")),
    "hard link": lambda: tar_bytes(inside("a"), *links(("b", f"{TOP}/src/a"), kind=tarfile.LNKTYPE)),
    "hard link outside": lambda: tar_bytes(*links(("b", "/etc/passwd"), kind=tarfile.LNKTYPE)),
    "character device": lambda: tar_bytes(inside("a", b"", tarfile.CHRTYPE)),
    "block device": lambda: tar_bytes(inside("a", b"", tarfile.BLKTYPE)),
    "pipe": lambda: tar_bytes(inside("a", b"", tarfile.FIFOTYPE)),
    "contiguous file": lambda: tar_bytes(inside("a", b"x", tarfile.CONTTYPE)),
    "unknown type": lambda: tar_bytes(inside("a", b"", b"Z")),
    "setuid": lambda: tar_bytes(inside("a", mode=0o4755)),
    "setgid": lambda: tar_bytes(inside("a", mode=0o2755)),
    "same name twice": lambda: tar_bytes(inside("a", b"1"), inside("a", b"2")),
    "same name twice, spelled differently": lambda: tar_bytes(inside("a", b"1"), inside("./a", b"2")),
    "file over a directory": lambda: tar_bytes(inside("a/b"), inside("a")),
    "directory over a file": lambda: tar_bytes(inside("a"), inside("a", b"", tarfile.DIRTYPE)),
    "sparse file": _sparse,
    "sizes that disagree": _size_clash,
    "negative size": _negative_size,
    "enormous size": _huge_size,
    "oversized extended header": _long_pax,
    "extended headers without end": _nested_pax,
    "zeros without end": lambda: tar_bytes(inside("a", b"\0" * 40_000_000)),
    "too many members": lambda: tar_bytes(*(inside(f"f{number}", b"") for number in range(20_001))),
    "no end mark": lambda: tar_bytes(inside("a"))[:1024],
    "cut inside a file": lambda: tar_bytes(inside("a", b"a" * 5000))[:2048],
    "cut inside a header": lambda: tar_bytes(inside("a"), inside("b"))[:1300],
    "damaged second header": lambda: tar_bytes(inside("a")).replace(b"\0" * 512, b"\x01" * 512, 1),
    "a second archive behind the first": lambda: tar_bytes(inside("a")) + tar_bytes(inside("b")),
    "nothing in it": tar_bytes,
    "nothing at the place asked for": lambda: tar_bytes(entry(f"{TOP}/elsewhere/a")),
    "a file at the place asked for": lambda: tar_bytes(entry(f"{TOP}/src")),
    "no tar at all": lambda: b"this is not a tar file" * 100,
    "no bytes": lambda: b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    archive = packed(tmp_path / "hostile.tar.gz", HOSTILE[name]())
    started_s = time.process_time()

    with pytest.raises((RefusedError, IntegrityError)) as caught:
        extract_tar(archive, room / "out", "src")

    assert time.process_time() - started_s < 5
    assert list(room.iterdir()) == []
    assert not Path("/llama-mgr-canary").exists()
    assert all(character.isprintable() for character in caught.value.message)


def test_damaged_gzip_is_an_integrity_error(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", tar_bytes(inside("a", os.urandom(5000))))
    whole = archive.read_bytes()

    for number, damaged in enumerate(
        [whole[:-4], whole[: len(whole) // 2], whole[:-8] + b"\0" * 8, b"\x1f\x8b\x08" + b"\xff" * 40, b"PK\x03\x04zip"]
    ):
        archive.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            extract_tar(archive, tmp_path / f"out{number}", "src")
        assert not (tmp_path / f"out{number}").exists()


def test_each_limit_is_enforced_at_its_exact_value(tmp_path: Path) -> None:
    raw = tar_bytes(inside("a", b"a" * 512), inside("b", b"b" * 512))
    archive = packed(tmp_path / "a.tar.gz", raw)

    extract_tar(archive, tmp_path / "fits", "src", Limits(members=2, size_bytes=len(raw)))
    with pytest.raises(IntegrityError, match="members"):
        extract_tar(archive, tmp_path / "out", "src", Limits(members=1))
    with pytest.raises(IntegrityError, match="more than the limit of"):
        extract_tar(archive, tmp_path / "out", "src", Limits(size_bytes=len(raw) - 1))


def test_a_ratio_is_refused_only_where_it_does_harm(tmp_path: Path) -> None:
    small = packed(tmp_path / "small.tar.gz", tar_bytes(inside("a", b"\0" * 10_000_000)))
    large = packed(tmp_path / "large.tar.gz", tar_bytes(inside("a", b"\0" * 20_000_000)))

    extract_tar(small, tmp_path / "small", "src")
    with pytest.raises(IntegrityError, match="200 times its size"):
        extract_tar(large, tmp_path / "large", "src")


def test_an_existing_target_is_not_touched(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", tar_bytes(inside("a")))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(LlamaMgrError):
        extract_tar(archive, tmp_path / "out", "src")

    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_a_time_in_the_future_or_past_all_reason_is_clamped(tmp_path: Path) -> None:
    raw = tar_bytes(inside("future", mtime=4_000_000_000.0), inside("past", mtime=-5.0))

    extract_tar(packed(tmp_path / "a.tar.gz", raw), tmp_path / "out", "src")

    assert (tmp_path / "out/future").stat().st_mtime <= time.time()
    assert (tmp_path / "out/past").stat().st_mtime == 0


def test_members_can_be_read_without_unpacking(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", tar_bytes(inside("a", b"1" * 300_000), inside("d/b", b"2")))

    found = {str(member.path): b"".join(member.chunks()) for member in members(archive, "src")}

    assert found == {"a": b"1" * 300_000, "d/b": b"2"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 3071), value=st.integers(0, 255))
def test_one_changed_byte_never_escapes_and_never_crashes(tmp_path: Path, position: int, value: int) -> None:
    raw = bytearray(tar_bytes(inside("a", b"a" * 600), *links(("l", "a")), form=tarfile.USTAR_FORMAT))
    raw[position] = value
    room = Path(tmp_path, f"{position}-{value}-{time.monotonic_ns()}")
    room.mkdir()
    archive = packed(tmp_path / "changed.tar.gz", bytes(raw))

    try:
        extract_tar(archive, room / "out", "src")
    except (RefusedError, IntegrityError):
        assert list(room.iterdir()) == []
    else:
        assert [path.name for path in room.iterdir()] == ["out"]
