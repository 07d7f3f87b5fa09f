"""Pulls of newer commits: what changed is replaced, and a model is never of two commits."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from llama_mgr.errors import RemoteError
from llama_mgr.models.library import Library
from llama_mgr.models.pull import Puller
from llama_mgr.models.reference import HubRef
from llama_mgr.models.side_car import read_record, side_car_of, write_record
from llama_mgr.paths import Home
from tests.tools.hub_models import OWNER_REPO, projector, quants, shards
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault
from tests.tools.pulled_files import REF, tree, with_records


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
