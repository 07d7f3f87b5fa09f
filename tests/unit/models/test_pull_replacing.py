"""Pulls where a file is in the way: what did not come from the same repository is never replaced."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.errors import ConflictError
from llama_mgr.models.pull import Puller
from tests.tools.hub_models import OWNER_REPO, quants, shards
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault
from tests.tools.pulled_files import REF, put_there, tree, with_records


@pytest.mark.parametrize("source", [None, f"hf:other/tiny@{'0' * 40}/tiny-Q4_K_M.gguf", "import:/x/y.gguf", "junk"])
def test_a_file_from_elsewhere_is_never_replaced(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, source: str | None
) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    path = place / "tiny-Q4_K_M.gguf"
    put_there(path, b"GGUF mine", source)
    before = tree(place)
    with pytest.raises(ConflictError, match="did not come from hf:owner/tiny-GGUF"):
        puller().pull(REF)
    assert path.read_bytes() == b"GGUF mine"
    assert tree(place) == before
    assert hub.seen("storage") == []


def put_before_the_renames(hub: LocalHub, path: Path) -> None:
    """Let another program write `path` while the pull is under way."""

    def write(chunk: bytes) -> bytes:
        path.write_bytes(b"GGUF mine")
        return chunk

    hub.fault(Fault(edit=write))


@pytest.mark.parametrize("number", [0, 1])
def test_a_file_that_came_from_elsewhere_meanwhile_is_not_replaced(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, number: int
) -> None:
    hub.add(OWNER_REPO, shards(2))
    path = place / list(shards(2))[number]
    put_before_the_renames(hub, path)
    with pytest.raises(ConflictError):
        puller().pull(REF)
    assert path.read_bytes() == b"GGUF mine"
    assert [name for name in tree(place) if not name.endswith(".part")] == [path.name]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_never_replaced(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, make: Callable[[Path], None]
) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    place.mkdir(parents=True)
    make(place / "tiny-Q4_K_M.gguf")
    with pytest.raises(ConflictError):
        puller().pull(REF)
    assert hub.seen("storage") == []


def test_a_file_that_an_older_version_fetched_is_ours(
    hub: LocalHub, puller: Callable[..., Puller], place: Path
) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    put_there(place / "tiny-Q4_K_M.gguf", b"GGUF old", f"hf:{OWNER_REPO}@{'0' * 40}/tiny-Q4_K_M.gguf")
    puller().pull(REF)
    assert (place / "tiny-Q4_K_M.gguf").read_bytes() == quants("Q4_K_M")["tiny-Q4_K_M.gguf"]


def test_the_very_file_without_a_record_is_taken_as_it_is(
    hub: LocalHub, puller: Callable[..., Puller], place: Path
) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    put_there(place / "tiny-Q4_K_M.gguf", quants("Q4_K_M")["tiny-Q4_K_M.gguf"], None)
    assert puller().pull(REF).bytes_fetched == 0
    assert tree(place) == with_records("tiny-Q4_K_M.gguf")


@pytest.mark.parametrize("content", [b'{"etag": "abc", "url": "https://x"}', b"my notes", b'["schema", "kind"]'])
def test_a_json_file_of_somebody_else_is_never_replaced(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, content: bytes
) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    place.mkdir(parents=True)
    theirs = place / "tiny-Q4_K_M.gguf.json"
    theirs.write_bytes(content)
    with pytest.raises(ConflictError, match="where its side-car must be"):
        puller().pull(REF)
    assert theirs.read_bytes() == content
    assert tree(place) == [theirs.name]
    assert hub.seen("storage") == []


def test_one_damaged_shard_is_fetched_again_alone(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    """As the `mend:` of `index verify` does it: the file goes, its side-car stays."""
    files = shards(3)
    hub.add(OWNER_REPO, files)
    puller().pull(REF)
    damaged = list(files)[1]
    (place / damaged).unlink()
    assert puller().pull(REF).bytes_fetched == len(files[damaged])
    assert tree(place) == with_records(*files)
