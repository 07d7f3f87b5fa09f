"""The index is a cache: whatever becomes of it, the same models are listed, and nothing is read twice."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.models.headers import table_name
from llama_mgr.models.index_file import IndexFile, Row
from llama_mgr.models.library import Library
from llama_mgr.models.roots import Roots
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, Remarks, catalog_of, keys, put, put_recorded, put_shards, table

MUTATIONS = 300


@pytest.fixture
def filled(home: Home) -> Home:
    """A home with one of everything."""
    put_recorded(home.models_dir / "o/hub/x-Q4_K_M.gguf", repo="o/hub", revision="a" * 40)
    put(home.models_dir / "o/hub/mmproj-F16.gguf", PROJECTOR)
    put(home.models_dir / "o/copy/x.gguf")
    put_shards(home.models_dir / "o/split", "x", 2, seed=3)
    put(home.models_dir / "o/broken/x.gguf", b"GGUF")
    return home


def index(home: Home) -> Path:
    return home.root / "index.sqlite"


def test_deleting_the_index_changes_nothing(filled: Home) -> None:
    first = table(catalog_of(filled))
    assert index(filled).is_file()
    index(filled).unlink()
    remarks = Remarks()
    assert table(catalog_of(filled, remarks)) == first
    assert not remarks.warnings
    assert table(catalog_of(filled)) == first


def disguise(path: Path, content: bytes) -> None:
    """Change the bytes of a file, and nothing that stat says."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_an_unchanged_file_is_not_read_again(filled: Home) -> None:
    first = table(catalog_of(filled))
    for path in filled.models_dir.rglob("*.gguf"):
        disguise(path, b"JUNK")
    for path in filled.models_dir.rglob("*.gguf.json"):
        disguise(path, b"JUNK")
    assert table(catalog_of(filled)) == first
    index(filled).unlink()
    assert not catalog_of(filled).models


@pytest.mark.parametrize("change", ["content", "time", "replaced"])
def test_a_changed_file_is_read_again(home: Home, change: str) -> None:
    path = put(home.models_dir / "o/r/x.gguf", model_bytes(context=1024))
    assert catalog_of(home).models[0].traits.context_tokens == 1024
    new = model_bytes(context=4096)
    assert len(new) == path.stat().st_size
    if change == "content":
        path.write_bytes(new)
    elif change == "time":
        disguise(path, new)
        os.utime(path, (1, 1))
    else:
        before = path.stat()
        path.with_name("new").write_bytes(new)
        os.utime(path.with_name("new"), ns=(before.st_atime_ns, before.st_mtime_ns))
        path.with_name("new").rename(path)
    assert catalog_of(home).models[0].traits.context_tokens == 4096


def test_a_side_car_that_comes_changes_and_goes_is_seen(home: Home) -> None:
    path = put(home.models_dir / "o/r/x.gguf")
    assert catalog_of(home).models[0].record is None
    for revision in ("a" * 40, "b" * 40):
        put_recorded(path, path.read_bytes(), repo="o/r", revision=revision)
        for _ in range(2):
            record = catalog_of(home).models[0].record
            assert record is not None
            assert record.revision == revision
    path.with_name("x.gguf.json").unlink()
    assert catalog_of(home).models[0].record is None


def test_files_that_are_gone_are_forgotten(filled: Home) -> None:
    catalog_of(filled)
    shutil.rmtree(filled.models_dir / "o/split")
    catalog_of(filled)
    paths = IndexFile(filled, table_name(), Remarks()).rows()
    assert paths
    assert not any(b"split" in path for path in paths)


def test_roots_that_are_not_watched_any_more_are_forgotten(filled: Home, tmp_path: Path) -> None:
    place = put(tmp_path / "watched/x.gguf", model_bytes(seed=9)).parent
    roots = Roots(filled, Remarks())
    roots.add(place, "folder")
    catalog_of(filled)

    def noted() -> int:
        rows = IndexFile(filled, table_name(), Remarks()).rows()
        return sum(path.startswith(str(place).encode()) for path in rows)

    assert noted() == 1
    place.rename(tmp_path / "away")
    catalog_of(filled)
    assert noted() == 1, "a disk that is away may come back"
    roots.remove(place)
    catalog_of(filled)
    assert noted() == 0


# -- damage ------------------------------------------------------------------------------------------------------------


def mutated(content: bytes, chance: random.Random) -> bytes | None:
    kind = chance.choice(["truncate", "flip", "zero", "swap", "delete", "text", "grow"])
    place, data = chance.randrange(len(content)), bytearray(content)
    if kind == "delete":
        return None
    if kind == "truncate":
        return content[:place]
    if kind == "flip":
        for _ in range(chance.choice([1, 1, 20])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "zero":
        data[place : place + 4096] = bytes(len(data[place : place + 4096]))
    elif kind == "swap":
        pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
        one, other = chance.randrange(len(pages)), chance.randrange(len(pages))
        pages[one], pages[other] = pages[other], pages[one]
        return b"".join(pages)
    elif kind == "text":
        data[place : place + 20] = b"this is no database "[: len(data[place : place + 20])]
    else:
        data += chance.randbytes(5000)
    return bytes(data)


def test_300_damaged_indexes_all_give_the_same_list(filled: Home) -> None:  # D9
    first = table(catalog_of(filled))
    good = index(filled).read_bytes()
    chance = random.Random(9)  # noqa: S311 (damage, no secrets)
    moved_aside = 0
    for number in range(MUTATIONS):
        for path in filled.root.glob("index.sqlite*"):
            path.unlink()
        content = mutated(good, chance)
        if content is not None:
            index(filled).write_bytes(content)
        remarks = Remarks()
        assert table(catalog_of(filled, remarks)) == first, number
        aside = list(filled.root.glob("index.sqlite.corrupt-*"))
        assert len(aside) == len(remarks.warnings) <= 1, (number, remarks.warnings)
        assert all(path.read_bytes() == content for path in aside), "what was damaged is not overwritten"
        moved_aside += len(aside)
        again = Remarks()
        assert table(catalog_of(filled, again)) == first, number
        assert not again.warnings, "it was made anew"
    assert moved_aside > MUTATIONS / 4


def test_a_change_that_sqlite_cannot_see_is_seen(filled: Home) -> None:
    first = table(catalog_of(filled))
    with sqlite3.connect(index(filled)) as connection:
        query = "UPDATE {} SET facts = CAST(replace(CAST(facts AS TEXT), 'Q4_K_M', 'Q8_0') AS BLOB)"
        assert connection.execute(query.format(table_name())).rowcount
    connection.close()
    remarks = Remarks()
    assert table(catalog_of(filled, remarks)) == first
    assert "checksum" in remarks.warnings[0]


def test_a_row_that_is_sound_and_means_nothing_is_read_again(filled: Home) -> None:
    first = table(catalog_of(filled))
    file = IndexFile(filled, table_name(), Remarks())
    file.update([row._replace(facts=b'{"traits": 5}') for row in file.rows().values()], [])
    remarks = Remarks()
    assert table(catalog_of(filled, remarks)) == first
    assert not remarks.warnings


def test_what_another_version_noted_is_left_alone(filled: Home) -> None:
    with sqlite3.connect(index(filled)) as connection:
        connection.execute("CREATE TABLE files_ffffffff (path BLOB, future TEXT)")
        connection.execute("INSERT INTO files_ffffffff VALUES (x'00', 'kept')")
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    remarks = Remarks()
    first = table(catalog_of(filled, remarks))
    assert table(catalog_of(filled, remarks)) == first
    assert not remarks.warnings
    with sqlite3.connect(index(filled)) as connection:
        assert connection.execute("SELECT future FROM files_ffffffff").fetchall() == [("kept",)]
    connection.close()


# -- out of reach ------------------------------------------------------------------------------------------------------


def as_directory(path: Path) -> None:
    path.mkdir()


def as_link_to_nothing(path: Path) -> None:
    path.symlink_to("/nonexistent/index")


@pytest.mark.parametrize("make", [as_directory, os.mkfifo, as_link_to_nothing])
def test_something_else_in_its_place_is_worked_without(filled: Home, make: Callable[[Path], None]) -> None:
    make(index(filled))
    remarks = Remarks()
    assert len(catalog_of(filled, remarks).models) == 2
    assert len(remarks.warnings) == 1
    assert "working without the index" in remarks.warnings[0]


def test_a_locked_index_is_worked_without(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_mgr.models.index_file._BUSY_TIMEOUT_S", 0.1)
    holder = sqlite3.connect(index(filled), isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    remarks = Remarks()
    assert len(catalog_of(filled, remarks).models) == 2
    assert len(remarks.warnings) == 1
    holder.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_home_that_cannot_be_written_to() -> None:
    """Root may write everywhere, so that a child plays the ordinary user; nobody may enter pytest's own directories."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        home = Home(Path(place, "home"))
        put_recorded(home.models_dir / "o/r/x.gguf")
        first = keys(catalog_of(home))
        for path in (home.root, *home.root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert as_nobody(home) == f"{first} []"
        put(home.models_dir / "o/new/x.gguf", model_bytes(seed=1)).chmod(0o444)
        told = as_nobody(home)
        assert told.startswith("['o/new:Q4_K_M', 'o/r:Q4_K_M']")
        assert told.count("working without the index") == 1


def as_nobody(home: Home) -> str:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tests.tools.model_library import Remarks, catalog_of, keys\n"
        "from llama_mgr.paths import Home\n"
        "os.setuid(65534)\n"
        "remarks = Remarks()\n"
        "print(keys(catalog_of(Home(Path(sys.argv[1])), remarks)), remarks.warnings)\n"
    )
    argv = [sys.executable, "-c", program, str(home.root)]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_at_once_agree(filled: Home) -> None:
    for number in range(20):
        put(filled.models_dir / f"many/r{number}/x.gguf", model_bytes(seed=100 + number))
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.tools.model_library import Remarks, catalog_of, keys\n"
        "from llama_mgr.paths import Home\n"
        "remarks = Remarks()\n"
        "print(len(catalog_of(Home(Path(sys.argv[1])), remarks).models), remarks.warnings)\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, filled.root], stdout=subprocess.PIPE, encoding="utf-8")
        for _ in range(4)
    ]
    assert [child.communicate()[0].strip() for child in children] == ["22 []"] * 4
    assert len(IndexFile(filled, table_name(), Remarks()).rows()) == 26


def test_rebuilding_deletes_what_was_there(filled: Home) -> None:
    first = table(catalog_of(filled))
    IndexFile(filled, "files_old", Remarks()).update([Row(b"x", "1:2:3", b"")], [])
    assert table(Library(filled, Remarks()).rebuild()) == first
    assert IndexFile(filled, "files_old", Remarks()).rows() == {}
    assert len(IndexFile(filled, table_name(), Remarks()).rows()) == 6


def test_completion_reads_and_writes_nothing(filled: Home) -> None:
    library = Library(filled, Remarks())
    assert library.known().models == ()
    assert not index(filled).exists()
    first = keys(catalog_of(filled))
    put(filled.models_dir / "o/new/x.gguf", model_bytes(seed=8))
    assert keys(Library(filled, Remarks()).known()) == first
