"""Pulls of models from a hub that runs here, over real HTTP."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.errors import BadInputError, HashMismatchError, NoSpaceError, RemoteError
from llama_mgr.models.pull import Pulled, Puller
from llama_mgr.models.reference import HubRef
from llama_mgr.models.side_car import ModelRecord, read_record, side_car_of
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import OWNER_REPO, claim_size, projector, quants, shards
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault
from tests.tools.local_hub_repo import LocalFile
from tests.tools.pulled_files import BIG, REF, tree, with_records


def test_the_preferred_quant_comes_with_a_record(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, listener: Listener
) -> None:
    files = quants("Q8_0", "Q4_K_M", "Q2_K")
    commit = hub.add(OWNER_REPO, files).branches["main"]
    pulled = puller().pull(REF)
    content = files["tiny-Q4_K_M.gguf"]
    path = place / "tiny-Q4_K_M.gguf"
    assert pulled == Pulled(OWNER_REPO, "Q4_K_M", (path,), None, commit, len(content), len(content), was_there=False)
    assert path.read_bytes() == content
    assert tree(place) == with_records("tiny-Q4_K_M.gguf")
    record = read_record(path)
    assert record is not None
    assert record.downloaded_at
    assert record == ModelRecord(
        source=f"hf:{OWNER_REPO}@{commit}/tiny-Q4_K_M.gguf", sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content), downloaded_at=record.downloaded_at, origin="hub", repo=OWNER_REPO, revision=commit,
        file="tiny-Q4_K_M.gguf",
    )  # fmt: skip
    assert any("taking Q4_K_M" in line and "first in the order" in line for line in listener.notes)


@pytest.mark.parametrize("quant", ["Q8_0", "q8_0", "Q2"])
def test_a_named_quant_is_taken(hub: LocalHub, puller: Callable[..., Puller], place: Path, quant: str) -> None:
    hub.add(OWNER_REPO, quants("Q8_0", "Q4_K_M", "Q2_K"))
    puller().pull(HubRef("owner", "tiny-GGUF", quant=quant))
    assert len(tree(place)) == 2
    assert tree(place)[0].startswith(f"tiny-{quant.upper()}")


def test_all_shards_and_the_projector_come(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    files = {**shards(3), **projector()}
    hub.add(OWNER_REPO, files)
    pulled = puller().pull(REF)
    assert [path.name for path in pulled.files] == [*shards(3)]
    assert pulled.projector == place / "mmproj-F16.gguf"
    assert pulled.bytes_fetched == sum(map(len, files.values()))
    assert tree(place) == with_records(*files)


def test_the_projector_can_be_left_out_and_come_later(
    hub: LocalHub, puller: Callable[..., Puller], place: Path
) -> None:
    hub.add(OWNER_REPO, {**quants("Q4_K_M"), **projector()})
    assert puller().pull(REF, with_projector=False).projector is None
    assert tree(place) == with_records("tiny-Q4_K_M.gguf")
    later = puller().pull(REF)
    assert later.bytes_fetched == len(projector()["mmproj-F16.gguf"])
    assert tree(place) == with_records("mmproj-F16.gguf", "tiny-Q4_K_M.gguf")


def test_files_in_directories_keep_their_place(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    hub.add(OWNER_REPO, {f"Q4_K_M/{name}": content for name, content in shards(2).items()})
    puller().pull(REF)
    assert tree(place) == with_records(*(f"Q4_K_M/{name}" for name in shards(2)))


def test_what_is_there_is_not_fetched_again(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, {**shards(2), **projector()})
    first = puller().pull(REF)
    asked = len(hub.seen("storage"))
    again = puller().pull(REF)
    assert (again.files, again.bytes_fetched, again.was_there) == (first.files, 0, True)
    assert len(hub.seen("storage")) == asked


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_a_pull_that_failed_goes_on_where_it_stopped(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, listener: Listener
) -> None:
    hub.add(OWNER_REPO, BIG)
    hub.fault(Fault(cut_after=1_000_000), times=1)
    with pytest.raises(RemoteError):
        puller().pull(REF)
    (partial,) = tree(place)
    sha256 = hashlib.sha256(BIG["tiny-Q4_K_M.gguf"]).hexdigest()
    assert partial == f".tiny-Q4_K_M.gguf.{sha256[:16]}.part"
    puller().pull(REF)
    assert any(line.startswith("going on with ") for line in listener.notes)
    assert (place / "tiny-Q4_K_M.gguf").read_bytes() == BIG["tiny-Q4_K_M.gguf"]
    assert hub.served.total() <= len(BIG["tiny-Q4_K_M.gguf"]) + 64 * 1024
    assert tree(place) == with_records("tiny-Q4_K_M.gguf")


def test_no_file_of_a_model_has_its_name_before_all_are_whole(
    hub: LocalHub, puller: Callable[..., Puller], place: Path
) -> None:
    hub.add(OWNER_REPO, {**shards(3), **projector()})
    hub.fault(Fault(hang_up=True), part="00003-of", times=1)
    with pytest.raises(RemoteError):
        puller().pull(REF)
    assert all(name.endswith(".part") for name in tree(place))
    assert len(tree(place)) == 2
    _, _, last = shards(3).values()
    assert puller().pull(REF).bytes_fetched == len(last) + len(projector()["mmproj-F16.gguf"])


def test_a_kill_before_the_records_costs_nothing(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    hub.add(OWNER_REPO, shards(3))
    pulled = puller().pull(REF)
    for path in pulled.files[:2]:
        side_car_of(path).unlink()
    again = puller().pull(REF)
    assert (again.bytes_fetched, again.was_there) == (0, False)
    assert tree(place) == with_records(*shards(3))


def test_a_kill_between_the_renames_costs_nothing(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    hub.add(OWNER_REPO, shards(2))
    first, second = puller().pull(REF).files
    sha256 = hashlib.sha256(first.read_bytes()).hexdigest()
    first.rename(first.with_name(f".{first.name}.{sha256[:16]}.part"))
    side_car_of(second).unlink()
    assert puller().pull(REF).bytes_fetched == 0
    assert tree(place) == with_records(*shards(2))


def test_a_damaged_model_is_fetched_again(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, BIG)
    (path,) = puller().pull(REF).files
    path.write_bytes(b"GGUF")
    assert puller().pull(REF).bytes_fetched == len(BIG["tiny-Q4_K_M.gguf"])
    assert path.read_bytes() == BIG["tiny-Q4_K_M.gguf"]


def test_two_at_once_fetch_once(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    files = {**shards(2, layers=4), **projector()}
    hub.add(OWNER_REPO, files)
    hub.bytes_per_s = 4_000_000
    results: list[Pulled] = []
    threads = [threading.Thread(target=lambda: results.append(puller().pull(REF))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.was_there for result in results) == [False, True, True, True]
    assert hub.served.total() == sum(map(len, files.values()))


def test_a_disk_without_room_is_told_before_the_first_byte(
    hub: LocalHub, puller: Callable[..., Puller], place: Path
) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    claim_size(hub, OWNER_REPO, "tiny-Q4_K_M.gguf", 1 << 50, place)
    with pytest.raises(NoSpaceError, match=r"needs 1\.0 TiB|needs 10\d\d\.\d TiB") as caught:
        puller().pull(REF)
    assert "are free on the file system of /" in caught.value.message
    assert "index prune" in str(caught.value.hint)
    assert hub.seen("storage") == []
    assert not place.exists() or tree(place) == []


# -- sha256, directory -------------------------------------------------------------------------------------------------


class Plain(LocalFile):
    """A file that is not stored with LFS, for which the hub names no sha256."""

    lfs = False


def test_a_small_file_without_sha256_is_checked_by_the_hash_of_git(
    hub: LocalHub, puller: Callable[..., Puller]
) -> None:
    content = model_bytes()
    repo = hub.add(OWNER_REPO, {})
    (files,) = repo.commits.values()
    files["tiny-Q4_K_M.gguf"] = Plain("tiny-Q4_K_M.gguf", content)
    (path,) = puller().pull(REF).files
    record = read_record(path)
    assert record is not None
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert puller().pull(REF).was_there
    side_car_of(path).unlink()
    assert puller().pull(REF).bytes_fetched == 0
    with pytest.raises(BadInputError, match="names no sha256"):
        puller().pull(REF, sha256=record.sha256)
    hub.fault(Fault(edit=lambda chunk: chunk[:-1] + b"!"), origin="hub", part="resolve-cache")
    path.unlink()
    with pytest.raises(HashMismatchError):
        puller().pull(REF)
    assert not path.exists()


def test_a_sha256_must_be_that_of_the_file(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    sha256 = hashlib.sha256(quants("Q4_K_M")["tiny-Q4_K_M.gguf"]).hexdigest()
    with pytest.raises(HashMismatchError, match="is wanted"):
        puller().pull(REF, sha256="d" * 64)
    assert hub.seen("storage") == []
    puller().pull(REF, sha256=sha256)
    assert tree(place) == with_records("tiny-Q4_K_M.gguf")


def test_a_sha256_is_not_for_several_files(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, shards(2))
    with pytest.raises(BadInputError, match="2 files"):
        puller().pull(REF, sha256="d" * 64)


def test_files_go_where_the_user_wants(
    hub: LocalHub, puller: Callable[..., Puller], home: Home, tmp_path: Path
) -> None:
    hub.add(OWNER_REPO, {**shards(2), **projector()})
    pulled = puller().pull(REF, directory=tmp_path / "usb" / "models")
    assert tree(tmp_path / "usb" / "models") == with_records(*shards(2), "mmproj-F16.gguf")
    assert pulled.files[0].parent == tmp_path / "usb" / "models"
    assert not home.models_dir.exists()


def test_a_record_is_readable_json(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    (path,) = puller().pull(REF).files
    document = json.loads(side_car_of(path).read_text())
    assert (document["schema"], document["kind"], document["repo"]) == (1, "model", OWNER_REPO)
