"""Checkpoints: which files, how they are checked, and the record that says that they are whole."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.download import Patience
from llama_mgr.errors import (
    BadInputError,
    ConflictError,
    HashMismatchError,
    NoSpaceError,
    RemoteError,
    UnknownModelError,
)
from llama_mgr.models.checkpoint import CheckpointPuller, PulledCheckpoint
from llama_mgr.models.checkpoint_files import checkpoint_files
from llama_mgr.models.hub import Hub, HubFile, HubRepo
from llama_mgr.models.reference import HubRef
from llama_mgr.paths import Home
from tests.tools.hub_models import checkpoint, claim_size
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

REPO = "owner/tiny"
REF = HubRef("owner", "tiny")
OTHERS = json.dumps(
    {"schema": 1, "kind": "checkpoint", "repo": "other/repo", "revision": "x", "downloaded_at": "", "files": []}
)
USUAL = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


def listing(*names: str) -> HubRepo:
    files = tuple(HubFile(REPO, name, "0" * 40, "a" * 64, 1) for name in names)
    return HubRepo(REPO, "0" * 40, files, gated=False, license=None, tags=(), downloads=0, updated_at=None)


def taken(*names: str, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> set[str]:
    return {file.name for file in checkpoint_files(listing(*names), include, exclude)}


# -- which files -------------------------------------------------------------------------------------------------------


def test_the_usual_files_are_those_that_the_converter_reads() -> None:
    wanted = {
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
        "config.json", "tokenizer.model", "tokenizer_config.json", "merges.txt", "chat_template.jinja", "qwen.tiktoken",
        "1_Pooling/config.json", "README.md", "LICENSE",
    }  # fmt: skip
    foreign = {
        "pytorch_model.bin", "pytorch_model.bin.index.json", "model.pth", "x.gguf", "x.gguf.json", "model.onnx",
        "onnx/config.json", "original/params.json", "original/tokenizer.model", "fp32/model.safetensors",
        "modeling_tiny.py", ".gitattributes", "checkpoint.json", "image.png", "tf_model.h5",
    }  # fmt: skip
    assert taken(*wanted, *foreign) == wanted


def test_the_same_weights_under_another_name_stay_away() -> None:
    twins = ("model-00001-of-00001.safetensors", "consolidated.safetensors", "config.json")
    assert taken(*twins) == {"model-00001-of-00001.safetensors", "config.json"}
    assert taken("consolidated.safetensors", "params.json") == {"consolidated.safetensors", "params.json"}


def test_patterns_of_the_user_replace_and_narrow() -> None:
    names = ("model.safetensors", "pytorch_model.bin", "config.json", "fp32/model.safetensors")
    assert taken(*names, include=("*.bin", "*.json")) == {"pytorch_model.bin", "config.json"}
    assert taken(*names, include=("fp32/*",)) == {"fp32/model.safetensors"}
    assert taken(*names, exclude=("*.json",)) == {"model.safetensors"}
    assert taken("checkpoint.json", "a.gguf.json", "config.json", include=("*.json",)) == {"config.json"}


def test_no_weights_and_no_match_are_told() -> None:
    with pytest.raises(UnknownModelError, match=r"no \.safetensors files, but config\.json, pytorch_model\.bin"):
        taken("pytorch_model.bin", "config.json")
    with pytest.raises(UnknownModelError, match="it has config"):
        taken("config.json", include=("*.safetensors",))


# -- pulling -----------------------------------------------------------------------------------------------------------


Pull = Callable[..., PulledCheckpoint]


@pytest.fixture
def pull(home: Home, hub: LocalHub, listener: Listener) -> Pull:
    def pulled(**options: object) -> PulledCheckpoint:
        client = Hub(hub.environ, listener, Patience(tries=1, first_delay_s=0.01, stall_s=5))
        return CheckpointPuller(home, client, listener).pull(REF, **options)  # type: ignore[arg-type]

    return pulled


@pytest.fixture
def place(home: Home) -> Path:
    return home.models_dir / "owner" / "tiny" / "checkpoint"


def names(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def record(place: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((place / "checkpoint.json").read_text())
    return document


def test_the_files_come_with_a_record(hub: LocalHub, pull: Pull, place: Path) -> None:
    files = checkpoint()
    commit = hub.add(REPO, files).branches["main"]
    pulled = pull()
    assert pulled.directory == place
    assert sorted(pulled.files) == USUAL
    assert names(place) == sorted([*USUAL, "checkpoint.json"])
    assert {name: (place / name).read_bytes() for name in USUAL} == {name: files[name] for name in USUAL}
    written = record(place)
    assert (written["kind"], written["repo"], written["revision"]) == ("checkpoint", REPO, commit)
    weights = next(one for one in written["files"] if one["name"] == "model.safetensors")  # type: ignore[attr-defined]
    assert weights["sha256"] == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert weights["size_bytes"] == len(files["model.safetensors"])


def test_what_is_there_is_not_fetched_again(hub: LocalHub, pull: Pull) -> None:
    hub.add(REPO, checkpoint())
    assert not pull().was_there
    served = hub.served.total()
    again = pull()
    assert (again.was_there, again.bytes_fetched, hub.served.total()) == (True, 0, served)


def test_a_changed_file_is_noticed_only_by_its_size_and_mended(hub: LocalHub, pull: Pull, place: Path) -> None:
    hub.add(REPO, checkpoint())
    pull()
    (place / "config.json").write_bytes(b"cut")
    assert pull().bytes_fetched == len(checkpoint()["config.json"])
    assert (place / "config.json").read_bytes() == checkpoint()["config.json"]


def test_a_pull_that_failed_has_no_record_and_goes_on(hub: LocalHub, pull: Pull, place: Path) -> None:
    hub.add(REPO, checkpoint(b"w" * 500_000))
    hub.fault(Fault(cut_after=200_000), times=1)
    with pytest.raises(RemoteError):
        pull()
    assert not (place / "checkpoint.json").exists()
    pull()
    assert hub.served["model.safetensors"] <= 500_000 + 64 * 1024
    assert names(place) == sorted([*USUAL, "checkpoint.json"])


def test_small_files_are_checked_by_the_hash_of_git(hub: LocalHub, pull: Pull, place: Path) -> None:
    hub.add(REPO, checkpoint())
    hub.fault(Fault(edit=lambda chunk: b"[" + chunk[1:]), origin="hub", part="tokenizer.json")
    with pytest.raises(HashMismatchError):
        pull()
    assert not (place / "checkpoint.json").exists()


def test_a_new_commit_replaces_removes_and_records(hub: LocalHub, pull: Pull, place: Path, listener: Listener) -> None:
    repo = hub.add(REPO, {**checkpoint(), "model-00002-of-00002.safetensors": b"second"})
    pull()
    commit = repo.commit(checkpoint(b"better" * 1000))
    pulled = pull()
    assert pulled.bytes_fetched == 6000
    assert names(place) == sorted([*USUAL, "checkpoint.json"])
    assert record(place)["revision"] == commit
    assert any("removed model-00002" in line for line in listener.notes)


def test_a_file_that_was_changed_here_is_left(hub: LocalHub, pull: Pull, place: Path, listener: Listener) -> None:
    repo = hub.add(REPO, {**checkpoint(), "extra.json": b"{}"})
    pull()
    (place / "extra.json").write_bytes(b"mine, mine")
    repo.commit(checkpoint())
    pull()
    assert (place / "extra.json").read_bytes() == b"mine, mine"
    assert any("extra.json" in line for line in listener.warnings)


def test_while_files_are_replaced_there_is_no_record(hub: LocalHub, pull: Pull, place: Path) -> None:
    repo = hub.add(REPO, checkpoint())
    pull()
    repo.commit(checkpoint(b"better" * 1000))
    hub.fault(Fault(hang_up=True), times=1)
    with pytest.raises(RemoteError):
        pull()
    assert not (place / "checkpoint.json").exists()
    pull()
    assert names(place) == sorted([*USUAL, "checkpoint.json"])


def test_a_moved_branch_does_not_make_our_own_files_foreign(hub: LocalHub, pull: Pull, tmp_path: Path) -> None:
    repo = hub.add(REPO, checkpoint())
    hub.fault(Fault(hang_up=True), times=1)
    with pytest.raises(RemoteError):
        pull(directory=tmp_path / "mine")
    assert (tmp_path / "mine" / "config.json").exists()
    repo.commit({**checkpoint(), "config.json": b'{"other": 1}'})
    pull(directory=tmp_path / "mine")
    assert (tmp_path / "mine" / "config.json").read_bytes() == b'{"other": 1}'


def test_who_asks_for_less_later_loses_nothing(hub: LocalHub, pull: Pull, place: Path) -> None:
    hub.add(REPO, checkpoint())
    pull()
    before = record(place)["files"]
    narrow = pull(include=["config.json"])
    assert (sorted(narrow.files), narrow.was_there) == (USUAL, True)
    assert record(place)["files"] == before
    (place / "model.safetensors").write_bytes(b"cut")
    assert pull().bytes_fetched == len(checkpoint()["model.safetensors"])


def test_one_directory_never_holds_two_commits(hub: LocalHub, pull: Pull, place: Path) -> None:
    repo = hub.add(REPO, checkpoint())
    pull()
    before = (record(place), names(place))
    commit = repo.commit({**checkpoint(b"better" * 1000), "tokenizer.json": b'{"new": 1}'})
    with pytest.raises(ConflictError, match=r"model\.safetensors came with commit"):
        pull(include=["tokenizer.json"])
    assert (record(place), names(place)) == before
    assert pull(include=["tokenizer.json", "model.safetensors"]).revision == commit
    assert sorted(one["name"] for one in record(place)["files"]) == USUAL  # type: ignore[attr-defined]


def test_a_gguf_is_no_part_of_a_checkpoint(hub: LocalHub, pull: Pull, place: Path) -> None:
    hub.add(REPO, {**checkpoint(), "tiny-Q4_K_M.gguf": b"GGUF"})
    with pytest.raises(BadInputError) as caught:
        pull(include=["*.gguf"])
    assert caught.value.hint == "llama-mgr pull owner/tiny"
    pull(include=["*"])
    assert not (place / "tiny-Q4_K_M.gguf").exists()


def test_a_file_from_elsewhere_that_came_meanwhile_is_not_replaced(hub: LocalHub, pull: Pull, place: Path) -> None:
    hub.add(REPO, checkpoint())

    def write(chunk: bytes) -> bytes:
        (place / "model.safetensors").write_bytes(b"mine")
        return chunk

    hub.fault(Fault(edit=write))
    with pytest.raises(ConflictError, match="did not come from owner/tiny"):
        pull()
    assert (place / "model.safetensors").read_bytes() == b"mine"


def test_a_file_from_elsewhere_is_never_replaced(hub: LocalHub, pull: Pull, tmp_path: Path) -> None:
    hub.add(REPO, checkpoint())
    (tmp_path / "config.json").write_bytes(b"mine")
    with pytest.raises(ConflictError, match="did not come from owner/tiny"):
        pull(directory=tmp_path)
    assert (tmp_path / "config.json").read_bytes() == b"mine"
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("content", [OTHERS, "{}", "junk"])
def test_a_directory_with_another_checkpoint_is_left(hub: LocalHub, pull: Pull, tmp_path: Path, content: str) -> None:
    hub.add(REPO, checkpoint())
    (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(ConflictError):
        pull(directory=tmp_path)
    assert (tmp_path / "checkpoint.json").read_text() == content


def test_a_disk_without_room_is_told_before_the_first_byte(hub: LocalHub, pull: Pull, place: Path) -> None:
    hub.add(REPO, checkpoint())
    claim_size(hub, REPO, "model.safetensors", 1 << 50, place)
    with pytest.raises(NoSpaceError):
        pull()
    assert hub.served.total() == 0
    assert not place.exists()
