"""The distributions of a base model: how large they are, who makes them, and which of them go when there are many."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from llama_mgr.errors import NoSpaceError, StorageError
from llama_mgr.locks import held_lock, is_locked, lock_file
from llama_mgr.make.logits import Logits
from llama_mgr.make.texts import Text
from llama_mgr.make.workshop import Workshop
from llama_mgr.paths import Home
from tests.tools.made_models import workshop_of

GIB = 1024**3
TEXT = Text("text.txt", b"word " * 20_000)
BASE = "b" * 64


@pytest.fixture
def workshop(home: Home, environ: Mapping[str, str]) -> Iterator[Workshop]:
    with workshop_of(home, environ) as opened:
        yield opened


@pytest.fixture
def logits(workshop: Workshop) -> Logits:
    return Logits(workshop, BASE, TEXT, 512, 0)


def put_kept(home: Home, name: str, size_bytes: int, age_s: int) -> Path:
    """Put an older file into the cache: a hole of `size_bytes` that takes no room."""
    file = home.cache_dir / "logits" / f"{name}.kld"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.truncate(file, size_bytes)
    os.utime(file, (2_000_000_000 - age_s, 2_000_000_000 - age_s))
    return file


def test_everything_that_changes_them_gives_another_file(logits: Logits, home: Home) -> None:
    build = msgspec.structs.replace(logits.workshop.build, digest="9" * 64)
    others = [
        replace(logits, base_sha256="c" * 64),
        replace(logits, text=Text("text.txt", b"other")),
        replace(logits, context_tokens=256),
        replace(logits, chunks=4),
        replace(logits, workshop=replace(logits.workshop, build=build)),
    ]
    assert len({logits.file, *(one.file for one in others)}) == 6
    assert logits.file.parent == home.cache_dir / "logits"
    assert replace(logits, text=Text("renamed.txt", TEXT.content)).file == logits.file


def test_the_size_is_not_estimated_too_small(logits: Logits) -> None:
    # llama-perplexity of b11434 wrote 100,286,452 bytes: 4 chunks of 512 tokens, a vocabulary of 49,152
    four = replace(logits, chunks=4).size_bytes(49_152)
    assert 100_286_452 <= four * 1.001 < 101_000_000
    assert replace(logits, chunks=1).size_bytes(49_152) * 4 == four
    assert replace(logits, context_tokens=1024, chunks=4).size_bytes(49_152) == 2 * four
    assert 1.99 < replace(logits, chunks=4).size_bytes(98_304) / four <= 2


# The first 20 bytes of the file that llama-perplexity of b11434 wrote of 4 chunks, and the size of it.
REAL_HEAD, REAL_BYTES = bytes.fromhex("5f6c6f676974735f0002000000c0000004000000"), 100_286_452


def put_logits(file: Path, size_bytes: int, head: bytes = REAL_HEAD) -> Path:
    file.write_bytes(head)
    os.truncate(file, size_bytes)
    return file


def test_a_file_that_is_shorter_than_its_beginning_says_is_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.kld"
    assert Logits.is_whole(put_logits(file, REAL_BYTES))
    for size_bytes in (REAL_BYTES - 1, REAL_BYTES // 2, 20, 19, 8, 0):
        assert not Logits.is_whole(put_logits(file, size_bytes))
    assert not Logits.is_whole(put_logits(file, REAL_BYTES, b"GGUF" + REAL_HEAD[4:]))
    odd = REAL_HEAD[:12] + (49_151).to_bytes(4, "little") + REAL_HEAD[16:]  # rows have an even number of values
    assert Logits.is_whole(put_logits(file, REAL_BYTES, odd))
    assert not Logits.is_whole(put_logits(file, REAL_BYTES - 1, odd))
    with pytest.raises(StorageError, match="cannot read"):
        Logits.is_whole(tmp_path / "missing.kld")


def test_the_text_limits_the_chunks(logits: Logits) -> None:
    one = replace(logits, chunks=1).size_bytes(1000)
    chunks = len(TEXT.content) // 3 // 512 + 1
    assert logits.size_bytes(1000) == chunks * one
    assert replace(logits, chunks=chunks + 5).size_bytes(1000) == chunks * one
    assert replace(logits, text=Text("x", b"short")).size_bytes(1000) == one


def test_the_first_makes_them_and_the_next_finds_them(logits: Logits, home: Home) -> None:
    with logits.held(1000) as file:
        assert file == logits.file
        assert not file.exists()
        assert is_locked(lock_file(home, f"logits-{file.stem}"))
        file.write_bytes(b"made")
    os.utime(file, (1, 1))
    with logits.held(1000) as again:
        assert again.read_bytes() == b"made"
    assert file.stat().st_mtime > 1_000_000  # used just now: it goes last
    assert not is_locked(lock_file(home, f"logits-{file.stem}"))


def test_what_is_there_is_lent_even_without_room_for_another(logits: Logits) -> None:
    with logits.held(1000) as file:
        file.write_bytes(b"made")
    with logits.held(10**15) as file:
        assert file.read_bytes() == b"made"


def test_the_oldest_go_when_there_are_too_many(logits: Logits, home: Home) -> None:
    kept = {name: put_kept(home, name, 3 * GIB, age_s) for name, age_s in (("newest", 1), ("oldest", 3), ("middle", 2))}
    with replace(logits, chunks=1).held(1000):
        pass
    assert {name for name, file in kept.items() if file.exists()} == {"newest", "middle"}


def test_what_a_killed_run_left_goes_and_what_is_being_made_stays(
    logits: Logits, home: Home, workshop: Workshop
) -> None:
    directory = home.cache_dir / "logits"
    directory.mkdir(parents=True)
    small = replace(logits, chunks=1)
    own, left, living, fresh = (directory / f"{name}.part" for name in (small.file.stem, "left", "living", "fresh"))
    for part in (own, left, living, fresh):
        part.write_bytes(b"some of it")
    for part in (left, living):
        os.utime(part, (1, 1))
    with held_lock(home, "logits-living", "make it", workshop.reporter), small.held(1000):
        assert not own.exists()
    assert sorted(directory.iterdir()) == [fresh, living]


def test_nothing_goes_as_long_as_all_fit(logits: Logits, home: Home) -> None:
    small = replace(logits, chunks=1)
    size_bytes = small.size_bytes(1000)
    kept = [put_kept(home, "a", 5 * GIB, 1), put_kept(home, "b", 3 * GIB - size_bytes, 2)]
    with small.held(1000):
        pass
    assert all(file.exists() for file in kept)
    os.truncate(kept[0], 5 * GIB + 1)
    os.utime(kept[0], (1, 1))
    with small.held(1000):
        pass
    assert [file.exists() for file in kept] == [False, True]


def test_no_room_on_the_disk_is_said_before_the_work(logits: Logits) -> None:
    why = r"cannot keep the distributions of 'text\.txt': it needs about"
    with pytest.raises(NoSpaceError, match=why), logits.held(10**15):
        pytest.fail("it was lent")
    assert not logits.file.exists()
