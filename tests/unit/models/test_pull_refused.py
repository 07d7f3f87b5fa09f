"""Pulls of what can be no model, or is not what was promised: nothing of it gets its name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.errors import (
    BadGgufError,
    BadInputError,
    HashMismatchError,
    IncompleteModelError,
    RefusedError,
    RemoteError,
    UnknownModelError,
    UnknownRepositoryError,
)
from llama_mgr.models.pull import Puller
from llama_mgr.models.reference import HubRef
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import OWNER_REPO, projector, quants, shards
from tests.tools.local_hub import LocalHub
from tests.tools.pulled_files import BIG, REF, tree

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
