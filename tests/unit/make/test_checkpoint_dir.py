"""What is known of a checkpoint before the converter sees it, which shards it must have, and what is staged."""

import os
from pathlib import Path

import pytest

from llama_mgr.errors import (
    StorageError,
)
from llama_mgr.make.checkpoint_dir import inspect_checkpoint, stage_checkpoint
from tests.tools.checkpoints import (
    DATA,
    llama_config,
    llama_tensors,
    refusal,
    write_adapter,
    write_checkpoint,
    write_json,
    write_safetensors,
)

INDEX = "model.safetensors.index.json"


def test_a_model_in_every_part(checkpoint: Path) -> None:
    found = inspect_checkpoint(checkpoint)
    count = sum(len(data) // 2 for _, _, data in llama_tensors().values())
    size_bytes = (checkpoint / "model.safetensors").stat().st_size
    assert (found.path, found.kind, found.architectures) == (checkpoint, "model", ("LlamaForCausalLM",))
    assert found.config == llama_config()
    assert found.weights == (("model.safetensors", size_bytes),)
    assert (found.weights_bytes, found.parameters, found.dtypes) == (size_bytes, count, {"F16": count})
    assert (found.files, found.has_code) == (DATA, ())
    assert (found.is_mistral, found.adapter_base) == (False, "")


def test_shards_count_by_their_index(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "c", shards=3, dtype="BF16")
    write_safetensors(directory / "model-extra.safetensors", {"x": ("F32", (1,), bytes(4))})
    found = inspect_checkpoint(directory)
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert [file.name for file in found.weights] == names
    assert found.weights_bytes == sum((directory / name).stat().st_size for name in names)
    assert set(found.dtypes) == {"BF16"}
    assert {INDEX, *names} < set(found.files)


def test_shards_without_an_index_count_by_their_names(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "c", shards=3)
    (directory / INDEX).unlink()
    assert len(inspect_checkpoint(directory).weights) == 3
    (directory / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is missing (shard 2 of 3)" in refusal(directory)


def test_a_shard_that_the_index_names_and_that_is_missing(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "c", shards=5)
    (directory / "model-00003-of-00005.safetensors").unlink()
    assert "model-00003-of-00005.safetensors is missing (shard 3 of 5)" in refusal(directory)
    (directory / "model-00003-of-00005.safetensors").symlink_to("nowhere")
    assert "is missing (shard 3 of 5)" in refusal(directory)


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a/model.safetensors",
        "model.bin",
        "..",
        "",
        "a\nb.safetensors",
    ],
)
def test_an_index_names_only_files_beside_it(checkpoint: Path, name: str) -> None:
    (checkpoint.parent / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    write_json(checkpoint / INDEX, {"weight_map": {"x": name}})
    assert "and not a .safetensors file beside it" in refusal(checkpoint)


@pytest.mark.parametrize(
    "index", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}', "\xff"]
)
def test_a_damaged_index(checkpoint: Path, index: str) -> None:
    (checkpoint / INDEX).write_bytes(index.encode("latin-1"))
    assert INDEX in refusal(checkpoint)


def test_an_index_that_is_too_large(checkpoint: Path) -> None:
    os.truncate(write_json(checkpoint / INDEX, {}), 65 * 1024 * 1024)
    assert "is larger than 64.0 MiB" in refusal(checkpoint)
    (checkpoint / INDEX).write_text('{"weight_map":{' + '"a":"",' * 500_001 + '"a":""}}')
    assert "more than 500,000 tensors" in refusal(checkpoint)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "c", shards=2)
    shard = directory / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)
    assert f"{shard}': it is cut off" in refusal(directory)


def test_the_form_of_mistral(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    write_json(directory / "params.json", {"dim": 32, "n_layers": 1, "vision_encoder": {"dim": 8}})
    write_safetensors(directory / "consolidated.safetensors", {"tok": ("BF16", (2, 2), bytes(8))})
    (directory / "tekken.json").write_text("{}")
    found = inspect_checkpoint(directory)
    assert (found.kind, found.is_mistral, found.config["dim"]) == ("model", True, 32)
    assert (found.architectures, found.parameters) == ((), 4)
    assert found.files == ("consolidated.safetensors", "params.json", "tekken.json")


def test_of_two_forms_the_usual_one_is_taken_and_the_other_not_staged(checkpoint: Path) -> None:
    write_json(checkpoint / "params.json", {"dim": 32})
    write_safetensors(checkpoint / "consolidated.safetensors", {"tok": ("BF16", (2, 2), bytes(8))})
    found = inspect_checkpoint(checkpoint)
    assert (found.is_mistral, [file.name for file in found.weights]) == (False, ["model.safetensors"])
    assert "consolidated.safetensors" not in found.files


def test_an_adapter(tmp_path: Path) -> None:
    found = inspect_checkpoint(write_adapter(tmp_path / "lora", base="owner/base"))
    assert (found.kind, found.adapter_base, found.config["r"]) == ("adapter", "owner/base", 2)
    assert (found.parameters, found.dtypes) == (128, {"F32": 128})
    assert found.files == ("adapter_config.json", "adapter_model.safetensors")


def test_an_adapter_beside_a_model_is_left_alone(checkpoint: Path) -> None:
    write_adapter(checkpoint)
    found = inspect_checkpoint(checkpoint)
    assert (found.kind, found.adapter_base) == ("model", "")
    assert "adapter_model.safetensors" not in found.files


def test_an_adapter_whose_base_is_no_text(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "lora")
    write_json(directory / "adapter_config.json", {"base_model_name_or_path": ["x"]})
    assert inspect_checkpoint(directory).adapter_base == ""


@pytest.mark.parametrize(
    ("config", "architectures"),
    [
        ({"text_config": {"architectures": ["Inner", "Other"]}}, ("Inner", "LlamaForCausalLM")),
        ({"llm_config": {"architectures": ["Inner"]}}, ("Inner", "LlamaForCausalLM")),
        ({"thinker_config": {"text_config": {"architectures": ["Inner"]}}}, ("Inner", "LlamaForCausalLM")),
        ({"vision_config": {"architectures": ["Seeing"]}}, ("LlamaForCausalLM", "Seeing")),
        ({"text_config": {"architectures": ["LlamaForCausalLM"]}}, ("LlamaForCausalLM",)),
        ({"architectures": [], "ssm_cfg": {"layer": "Mamba2"}}, ("Mamba2ForCausalLM",)),
        ({"architectures": None, "text_config": 5, "vision_config": []}, ()),
        ({"architectures": [7]}, ()),
    ],
)
def test_architectures_are_those_that_the_converter_may_choose(
    tmp_path: Path, config: dict[str, object], architectures: tuple[str, ...]
) -> None:
    assert inspect_checkpoint(write_checkpoint(tmp_path / "c", config=config)).architectures == architectures


def test_numbers_that_python_writes_are_allowed(tmp_path: Path) -> None:
    found = inspect_checkpoint(write_checkpoint(tmp_path / "c", config={"time_step_limit": [0.0, float("inf")]}))
    assert found.config["time_step_limit"] == [0.0, float("inf")]


# -- staging -----------------------------------------------------------------------------------------------------------


def staged(target: Path) -> set[str]:
    return {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()}


def test_only_data_is_staged_as_links(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "notes.md", "image.png", "other.gguf", "onnx/model.onnx"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).touch()
    for name in ("README.md", "chat_template.jinja", "tokenizer.model", "merges.txt", "1_Pooling/config.json"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_text("{}")
    (checkpoint / ".cache").mkdir()
    (checkpoint / ".cache" / "x.json").touch()
    target = tmp_path / "below" / "staged"
    stage_checkpoint(inspect_checkpoint(checkpoint), target)
    wanted = {*DATA, "README.md", "chat_template.jinja", "tokenizer.model", "merges.txt", "1_Pooling/config.json"}
    assert staged(target) == wanted
    for name in wanted:
        assert (target / name).is_symlink()
        assert (target / name).readlink() == (checkpoint / name).resolve()
    assert target.stat().st_mode & 0o777 == 0o700


def test_links_of_a_cache_are_followed_to_their_end(checkpoint: Path, tmp_path: Path) -> None:
    blob = tmp_path / "models--owner--tiny" / "blobs" / "0123"
    blob.parent.mkdir(parents=True)
    (checkpoint / "config.json").rename(blob)
    (checkpoint / "config.json").symlink_to("../../blobs/0123")
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / ("5" * 40)
    snapshot.parent.mkdir()
    checkpoint.rename(snapshot)
    stage_checkpoint(inspect_checkpoint(snapshot), tmp_path / "staged")
    assert (tmp_path / "staged" / "config.json").readlink() == blob


def test_a_relative_checkpoint_can_be_staged(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    stage_checkpoint(inspect_checkpoint(Path("checkpoint")), Path("staged"))
    assert Path("staged/model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def test_with_trust_everything_is_staged_but_history_and_what_is_hidden(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("m.py", "below/n.py", "pytorch_model.bin", ".git/config", ".hidden"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).touch()
    found = inspect_checkpoint(checkpoint, trust_remote_code=True)
    stage_checkpoint(found, tmp_path / "all", trust_remote_code=True)
    assert staged(tmp_path / "all") == {*DATA, "m.py", "below/n.py", "pytorch_model.bin"}
    stage_checkpoint(found, tmp_path / "data")
    assert staged(tmp_path / "data") == set(DATA)


def test_an_adapter_is_staged(tmp_path: Path) -> None:
    stage_checkpoint(inspect_checkpoint(write_adapter(tmp_path / "lora")), tmp_path / "staged")
    assert staged(tmp_path / "staged") == {"adapter_config.json", "adapter_model.safetensors"}


def test_staging_says_what_is_in_the_way(checkpoint: Path, tmp_path: Path) -> None:
    found = inspect_checkpoint(checkpoint)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(StorageError, match=r"tokenizer\.json"):
        stage_checkpoint(found, tmp_path / "staged")
