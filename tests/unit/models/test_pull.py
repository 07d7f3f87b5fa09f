"""Pulls of models from a hub that runs here, over real HTTP."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from llama_mgr.download import Patience
from llama_mgr.errors import (
    BadGgufError,
    BadInputError,
    ConflictError,
    HashMismatchError,
    IncompleteModelError,
    NoSpaceError,
    RefusedError,
    RemoteError,
    UnknownModelError,
    UnknownRepositoryError,
)
from llama_mgr.models.hub import Hub
from llama_mgr.models.library import Library
from llama_mgr.models.memory import Machine
from llama_mgr.models.pull import Pulled, Puller
from llama_mgr.models.reference import HubRef
from llama_mgr.models.side_car import ModelRecord, read_record, side_car_of, write_record
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import OWNER_REPO, claim_size, projector, quants, shards
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault
from tests.tools.local_hub_repo import LocalFile

REF = HubRef("owner", "tiny-GGUF")
BIG = {"tiny-Q4_K_M.gguf": model_bytes(layers=12)}
"""2.2 MB, so that it takes many reads."""


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def puller(home: Home, hub: LocalHub, listener: Listener) -> Callable[..., Puller]:
    def made(machine: Machine | None = None, tries: int = 1) -> Puller:
        client = Hub(hub.environ, listener, Patience(tries=tries, first_delay_s=0.01, stall_s=5))
        return Puller(home, client, listener, machine=machine)

    return made


@pytest.fixture
def place(home: Home) -> Path:
    return home.models_dir / "owner" / "tiny-GGUF"


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def with_records(*names: str) -> list[str]:
    return sorted([*names, *(f"{name}.json" for name in names)])


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


# -- new commits -------------------------------------------------------------------------------------------------------


def test_a_new_commit_replaces_what_changed(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    repo = hub.add(OWNER_REPO, {**quants("Q4_K_M"), **projector()})
    puller().pull(REF)
    newer = quants("Q4_K_M", seed=1)
    repo.commit({**newer, **projector()})
    pulled = puller().pull(REF)
    assert pulled.bytes_fetched == len(newer["tiny-Q4_K_M.gguf"])
    assert pulled.files[0].read_bytes() == newer["tiny-Q4_K_M.gguf"]
    record = read_record(pulled.files[0])
    assert record is not None
    assert record.revision == repo.branches["main"]
    assert tree(place) == with_records("mmproj-F16.gguf", "tiny-Q4_K_M.gguf")


def test_the_old_model_stays_until_the_new_one_is_whole(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    repo = hub.add(OWNER_REPO, quants("Q4_K_M"))
    (path,) = puller().pull(REF).files
    before = (path.read_bytes(), side_car_of(path).read_bytes())
    repo.commit(quants("Q4_K_M", seed=1))
    hub.fault(Fault(cut_after=100_000), times=1)
    with pytest.raises(RemoteError):
        puller().pull(REF)
    assert (path.read_bytes(), side_car_of(path).read_bytes()) == before
    puller().pull(REF)
    assert path.read_bytes() == quants("Q4_K_M", seed=1)["tiny-Q4_K_M.gguf"]


@pytest.mark.parametrize("changed", [[0], [1], [0, 1, 2]])
def test_shards_are_replaced_together(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, changed: list[int]
) -> None:
    repo = hub.add(OWNER_REPO, shards(3))
    puller().pull(REF)
    names, newer = list(shards(3)), shards(3, seed=1)
    wanted = {name: newer[name] if number in changed else shards(3)[name] for number, name in enumerate(names)}
    repo.commit(wanted)
    assert puller().pull(REF).bytes_fetched == sum(len(newer[names[number]]) for number in changed)
    assert {name: (place / name).read_bytes() for name in names} == wanted
    assert tree(place) == with_records(*names)


def revisions(place: Path) -> set[str | None]:
    found = [read_record(path) for path in place.glob("*-of-*.gguf")]
    return {record.revision for record in found if record is not None}


@pytest.mark.parametrize("changed", [0, 1])
def test_the_records_of_a_split_model_tell_of_one_commit(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, home: Home, changed: int
) -> None:
    repo = hub.add(OWNER_REPO, shards(3))
    puller().pull(REF)
    name = list(shards(3))[changed]
    commit = repo.commit({**shards(3), name: shards(3, seed=1)[name]})
    puller().pull(REF)
    assert revisions(place) == {commit}
    catalog = Library(home, Listener()).catalog()
    assert ([model.name for model in catalog.models], catalog.broken) == ([OWNER_REPO], ())


def test_records_of_two_commits_are_mended_without_a_download(
    hub: LocalHub, puller: Callable[..., Puller], place: Path
) -> None:
    commit = hub.add(OWNER_REPO, shards(2)).branches["main"]
    _, second = puller().pull(REF).files
    record = read_record(second)
    assert record is not None
    old = f"hf:{OWNER_REPO}@{'0' * 40}/{second.name}"
    write_record(second, msgspec.structs.replace(record, revision="0" * 40, source=old))
    assert puller().pull(REF).bytes_fetched == 0
    assert revisions(place) == {commit}


def test_a_pull_stays_at_the_commit_that_it_began_with(
    hub: LocalHub, puller: Callable[..., Puller], place: Path
) -> None:
    files = {**shards(2), **projector()}
    repo = hub.add(OWNER_REPO, files)
    began = repo.branches["main"]

    def push(chunk: bytes) -> bytes:
        if len(repo.commits) == 1:
            repo.commit({**shards(2, seed=1), **projector(seed=1)})
        return chunk

    hub.fault(Fault(edit=push))
    assert puller().pull(REF).revision == began
    assert {name: (place / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("revision", ["old", "COMMIT"])
def test_a_revision_can_be_named(hub: LocalHub, puller: Callable[..., Puller], place: Path, revision: str) -> None:
    repo = hub.add(OWNER_REPO, quants("Q4_K_M"))
    commit = repo.commit(quants("Q4_K_M", seed=7), "old")
    ref = HubRef("owner", "tiny-GGUF", revision=revision.replace("COMMIT", commit))
    assert puller().pull(ref).revision == commit
    assert (place / "tiny-Q4_K_M.gguf").read_bytes() == quants("Q4_K_M", seed=7)["tiny-Q4_K_M.gguf"]


# -- what is not ours, and what is wrong -------------------------------------------------------------------------------


def put_there(path: Path, content: bytes, source: str | None) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    if source is not None:
        sha256 = hashlib.sha256(content).hexdigest()
        write_record(path, ModelRecord(source=source, sha256=sha256, size_bytes=len(content), downloaded_at=""))


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


ADAPTER = model_bytes(extra={"general.type": "adapter", "adapter.type": "lora"})


@pytest.mark.parametrize(
    ("content", "what"), [(ADAPTER, "an adapter"), (projector()["mmproj-F16.gguf"], "a projector")]
)
def test_what_can_be_no_model_does_not_stay(
    hub: LocalHub, puller: Callable[..., Puller], home: Home, content: bytes, what: str
) -> None:
    hub.add(OWNER_REPO, {"tiny-Q4_K_M.gguf": content})
    with pytest.raises(BadInputError, match=f"it is {what}"):
        puller().pull(REF)
    assert tree(home.models_dir) == []


def test_a_name_without_room_for_its_record_is_refused_at_once(
    hub: LocalHub, puller: Callable[..., Puller], home: Home
) -> None:
    hub.add(OWNER_REPO, {f"{'x' * 230}-Q4_K_M.gguf": model_bytes()})
    with pytest.raises(RefusedError, match="more than 230 bytes"):
        puller().pull(REF)
    assert hub.seen("storage") == []
    assert tree(home.models_dir) == []


def test_the_longest_name_that_is_not_refused_can_be_pulled(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    name = f"{'x' * 218}-Q4_K_M.gguf"
    assert len(name) == 230
    hub.add(OWNER_REPO, {name: model_bytes()})
    assert puller().pull(REF).files[0].name == name


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


def test_other_bytes_than_promised_are_not_kept(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    repo = hub.add(OWNER_REPO, {})
    repo.commit(BIG, listed_sha256={"tiny-Q4_K_M.gguf": "c" * 64})
    with pytest.raises(HashMismatchError):
        puller().pull(REF)
    assert len(hub.seen("storage")) == 2
    assert tree(place) == []


@pytest.mark.parametrize("content", [b"<html>no</html>" * 100, b"GGUF" + bytes(100), model_bytes()[:-1]])
def test_a_file_that_is_no_gguf_never_gets_its_name(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, content: bytes
) -> None:
    hub.add(OWNER_REPO, {"tiny-Q4_K_M.gguf": content})
    with pytest.raises((BadGgufError, RemoteError)):
        puller().pull(REF)
    assert not (place / "tiny-Q4_K_M.gguf").exists()
    assert not [name for name in tree(place) if not name.endswith(".part")]


def broken_sets() -> dict[str, dict[str, bytes]]:
    """Sets of shards that no model can be made of, as repositories have had them (reliability: D12)."""
    whole, names = shards(3), list(shards(3))
    one, two, three = whole.values()
    other_one, other_two, other_three = shards(3, layers=2).values()
    return {
        "first missing": dict(list(whole.items())[1:]),
        "middle missing": {names[0]: one, names[2]: three},
        "last missing": dict(list(whole.items())[:2]),
        "swapped": {names[0]: one, names[1]: three, names[2]: two},
        "doubled": {names[0]: one, names[1]: two, names[2]: two},
        "first is a whole model": {names[0]: model_bytes(), names[1]: two, names[2]: three},
        "last is a whole model": {names[0]: one, names[1]: two, names[2]: model_bytes()},
        "all are whole models": dict.fromkeys(names, model_bytes()),
        "count too small": dict(zip(list(shards(2)), (one, two), strict=True)),
        "count too big": dict(zip(list(shards(4)), (one, two, three, three), strict=True)),
        "one of another model": {names[0]: one, names[1]: other_two, names[2]: three},
        "first of another model": {names[0]: other_one, names[1]: two, names[2]: three},
        "last of another model": {names[0]: one, names[1]: two, names[2]: other_three},
        "a projector among them": {names[0]: one, names[1]: projector()["mmproj-F16.gguf"], names[2]: three},
        "a lone shard under a plain name": {"tiny-Q4_K_M.gguf": two},
    }


@pytest.mark.parametrize("name", broken_sets())
def test_a_broken_set_of_shards_never_becomes_a_model(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, name: str
) -> None:
    hub.add(OWNER_REPO, broken_sets()[name])
    with pytest.raises(IncompleteModelError, match="shard"):
        puller().pull(REF)
    if place.exists():
        assert all(left.endswith(".part") for left in tree(place))


def test_a_wrong_shard_is_found_before_the_next_one_comes(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, broken_sets()["all are whole models"])
    with pytest.raises(IncompleteModelError, match="shard 1 of 3"):
        puller().pull(REF)
    assert len(hub.seen("storage")) == 1


def test_hostile_names_stop_the_whole_pull(hub: LocalHub, puller: Callable[..., Puller], home: Home) -> None:
    hub.add(OWNER_REPO, {**quants("Q4_K_M"), "../../../authorized_keys.gguf": b"GGUF"})
    with pytest.raises(RefusedError):
        puller().pull(REF)
    assert hub.seen("storage") == []
    assert tree(home.root) == []


def test_unknown_repositories_and_quants_are_told(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    with pytest.raises(UnknownRepositoryError):
        puller().pull(HubRef("owner", "nothing"))
    with pytest.raises(UnknownModelError, match="Q4_K_M"):
        puller().pull(HubRef("owner", "tiny-GGUF", quant="Q6_K"))


def test_a_repository_without_gguf_is_listed(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, {"model.safetensors": b"x", "config.json": b"{}", ".gitattributes": b""})
    with pytest.raises(UnknownModelError, match=r"it has config.json, model.safetensors, .gitattributes") as caught:
        puller().pull(REF)
    assert "llama-mgr pull --checkpoint owner/tiny-GGUF" in str(caught.value.hint)


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


# -- what suits the machine --------------------------------------------------------------------------------------------


def machine(free_bytes: int) -> Machine:
    return Machine(ram_bytes=1 << 40, ram_free_bytes=free_bytes)


def sizes(hub: LocalHub, place: Path) -> None:
    """Offer Q4_K_M with 40 GB and Q2_K with 10 GB, as far as the listing says, and a small IQ3_S."""
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q2_K", "IQ3_S"))
    claim_size(hub, OWNER_REPO, "tiny-Q4_K_M.gguf", 40_000_000_000, place)
    claim_size(hub, OWNER_REPO, "tiny-Q2_K.gguf", 10_000_000_000, place)


def test_the_preferred_quant_that_does_not_fit_is_not_taken(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, listener: Listener
) -> None:
    sizes(hub, place)
    assert puller(machine(8_000_000_000)).pull(REF).quant == "IQ3_S"
    assert any("Q4_K_M (37.3 GiB) does not fit into the memory" in line for line in listener.notes)
    assert listener.warnings == []


def test_when_nothing_fits_the_smallest_is_taken_with_a_warning(
    hub: LocalHub, puller: Callable[..., Puller], place: Path, listener: Listener
) -> None:
    sizes(hub, place)
    assert puller(machine(1000)).pull(REF).quant == "IQ3_S"
    assert any("does not fit" in line for line in listener.warnings)


def test_what_is_here_already_is_kept_to(hub: LocalHub, puller: Callable[..., Puller], listener: Listener) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q8_0"))
    puller().pull(HubRef("owner", "tiny-GGUF", quant="Q8_0"))
    again = puller().pull(REF)
    assert (again.quant, again.was_there) == ("Q8_0", True)
    assert any("here already" in line for line in listener.notes)


def test_what_was_begun_is_gone_on_with(hub: LocalHub, puller: Callable[..., Puller]) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q8_0"))
    hub.fault(Fault(cut_after=100_000), times=1)
    with pytest.raises(RemoteError):
        puller().pull(HubRef("owner", "tiny-GGUF", quant="Q8_0"))
    assert puller().pull(REF).quant == "Q8_0"


def test_a_file_of_others_was_not_begun_here(hub: LocalHub, puller: Callable[..., Puller], place: Path) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q8_0"))
    put_there(place / "tiny-Q8_0.gguf", b"GGUF mine", "import:/x/y.gguf")
    assert puller().pull(REF).quant == "Q4_K_M"


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
