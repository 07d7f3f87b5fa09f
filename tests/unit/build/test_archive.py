"""Honest archives come out whole; damaged ones, and those that pass a limit, leave nothing."""

import os
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_mgr.build.archive import extract_tar
from llama_mgr.build.tar_members import Limits, members
from llama_mgr.errors import IntegrityError, RefusedError, StorageError
from tests.tools.tar_archive import TOP, entry, inside, links, packed, tar_bytes


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

    with pytest.raises(StorageError, match=r"cannot unpack to .* File exists"):
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
        made = list((room / "out").rglob("*"))
        assert made
        assert all(path.is_symlink() or path.is_file() or path.is_dir() for path in made)
        assert all(Path(path.readlink()).name == str(path.readlink()) for path in made if path.is_symlink())
