"""Checkpoints that the converter never sees: damaged ones, and those that bring or name code; and what trust allows."""

import json
import os
from pathlib import Path

import pytest

from llama_mgr.errors import (
    BadCheckpointError,
    BadInputError,
    NotFoundError,
    StorageError,
    UnsafeCheckpointError,
)
from llama_mgr.make.checkpoint_dir import inspect_checkpoint
from tests.tools.checkpoints import (
    DATA,
    llama_config,
    refusal,
    tokenizer_config,
    write_json,
    write_safetensors,
)

PICKLE = b"\x80\x02}q\x00."


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such directory"):
        inspect_checkpoint(tmp_path / "absent")
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(BadInputError, match="it is a GGUF already") as caught:
        inspect_checkpoint(tmp_path / "m.gguf")
    assert "llama-mgr quantize" in str(caught.value.hint)
    (tmp_path / "model.safetensors").write_bytes(bytes(20))
    with pytest.raises(BadInputError, match="a checkpoint is a directory"):
        inspect_checkpoint(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInputError, match="a checkpoint is a directory"):
        inspect_checkpoint(tmp_path / "pipe")


def test_a_configuration_that_is_missing_or_damaged(checkpoint: Path) -> None:
    config = checkpoint / "config.json"
    config.unlink()
    assert "it has no config.json" in refusal(checkpoint)
    config.symlink_to("nowhere")
    assert "it has no config.json" in refusal(checkpoint)
    config.unlink()
    for content in (b"", b"{", b"\xff{}", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"):
        config.write_bytes(content)
        assert "config.json is not JSON" in refusal(checkpoint)
    for content in (b"[]", b"7", b"null", b'"text"'):
        config.write_bytes(content)
        assert "config.json is not a JSON object" in refusal(checkpoint)


def test_a_configuration_of_100_mb_is_not_read(checkpoint: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        content = (checkpoint / name).read_bytes()
        os.truncate(checkpoint / name, 100_000_000)
        assert f"{name} is larger than 16.0 MiB" in refusal(checkpoint)
        (checkpoint / name).write_bytes(content)


def test_pipes_are_not_waited_for(checkpoint: Path) -> None:
    os.mkfifo(checkpoint / "other_config.json")
    assert inspect_checkpoint(checkpoint).files == DATA
    (checkpoint / "config.json").unlink()
    os.mkfifo(checkpoint / "config.json")
    with pytest.raises(StorageError, match="not a regular file"):
        inspect_checkpoint(checkpoint)


def test_a_checkpoint_without_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    write_safetensors(checkpoint / "other.safetensors", {})
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        (checkpoint / name).write_bytes(PICKLE)
    assert "it has no weights, which are model*.safetensors" in refusal(checkpoint)
    (checkpoint / "config.json").unlink()
    assert "it has no config.json and no weights" in refusal(checkpoint)


def test_the_base_of_an_adapter_needs_no_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(PICKLE)
    found = inspect_checkpoint(checkpoint, needs_weights=False)
    assert (found.weights, found.parameters, found.architectures) == ((), 0, ("LlamaForCausalLM",))
    assert found.files == tuple(name for name in DATA if not name.endswith(".safetensors"))
    (checkpoint / "x.py").touch()
    with pytest.raises(UnsafeCheckpointError):
        inspect_checkpoint(checkpoint, needs_weights=False)


def test_a_directory_with_very_many_files(checkpoint: Path) -> None:
    (checkpoint / "many").mkdir()
    for number in range(10_001):
        (checkpoint / "many" / str(number)).symlink_to("x")  # faster than files
    assert "more than 10,000 files" in refusal(checkpoint)


@pytest.mark.parametrize("name", ["x.py", "X.PY", "x.pyc", "x.pyd", "a/b/x.cpython-311.so", "__pycache__/x.pyc"])
def test_code_is_refused_wherever_it_lies(checkpoint: Path, name: str) -> None:
    (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
    (checkpoint / name).touch()
    assert f"it brings or names code: {name}" in refusal(checkpoint, UnsafeCheckpointError)


def test_code_in_the_history_of_git_and_behind_links_to_directories_is_no_part_of_it(checkpoint: Path) -> None:
    outside = checkpoint.parent / "outside"
    outside.mkdir()
    (outside / "x.py").touch()
    (checkpoint / ".git" / "hooks").mkdir(parents=True)
    (checkpoint / ".git" / "hooks" / "x.py").touch()
    (checkpoint / "link").symlink_to(outside)
    (checkpoint / "loop").symlink_to(checkpoint)
    assert inspect_checkpoint(checkpoint).files == DATA


def test_text_of_elsewhere_does_not_get_into_a_model(checkpoint: Path) -> None:
    outside = checkpoint.parent / "id_ed25519"
    outside.write_text("secret")
    (checkpoint / "chat_template.jinja").symlink_to(outside)
    assert "links to files elsewhere" in refusal(checkpoint, UnsafeCheckpointError)
    assert "chat_template.jinja" in refusal(checkpoint, UnsafeCheckpointError)
    assert "chat_template.jinja" in inspect_checkpoint(checkpoint, trust_remote_code=True).files


def test_weights_may_lie_elsewhere(checkpoint: Path) -> None:
    weights = (checkpoint / "model.safetensors").rename(checkpoint.parent / "weights")
    (checkpoint / "model.safetensors").symlink_to(weights)
    assert inspect_checkpoint(checkpoint).files == DATA


@pytest.mark.parametrize(
    ("file", "fields", "says"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "m.C"}}, "auto_map in config.json"),
        ("config.json", {"a": [{"b": {"auto_map": "m.C"}}]}, "auto_map in config.json"),
        ("tokenizer_config.json", {"auto_map": ["m.C", None]}, "auto_map in tokenizer_config.json"),
        ("config.4.50.0.json", {"auto_map": {"AutoConfig": "m.C"}}, "auto_map in config.4.50.0.json"),
        ("tokenizer/tokenizer_config.json", {"auto_map": ["m.C"]}, "auto_map in tokenizer/tokenizer_config.json"),
        ("processor_config.json", {"auto_map": {"A": "o/r--m.C"}}, "auto_map (remote, of o/r) in processor_config"),
        ("video_preprocessor_config.json", {"auto_map": {"A": "m.C"}}, "auto_map in video_preprocessor_config.json"),
        ("config.json", {"_attn_implementation_internal": "o/k"}, "_attn_implementation_internal in config.json"),
        ("config.json", {"_attn_implementation": "o/k@main"}, "_attn_implementation (kernels of o/k@main) in config"),
        ("config.json", {"attn_implementation": {"": "sdpa", "t": "o/k"}}, "attn_implementation (kernels of o/k)"),
        ("config.json", {"text_config": {"_experts_implementation": "o/k"}}, "_experts_implementation (kernels of"),
        ("config.json", {"trust_remote_code": True}, "trust_remote_code in config.json"),
        ("config.json", {"custom_pipelines": {"p": {"impl": "m.C"}}}, "custom_pipelines in config.json"),
        ("generation_config.json", {"custom_generate": "o/r"}, "custom_generate in generation_config.json"),
    ],
)  # fmt: skip
def test_fields_that_name_code_are_refused(checkpoint: Path, file: str, fields: dict[str, object], says: str) -> None:
    before = json.loads((checkpoint / file).read_text()) if (checkpoint / file).exists() else {}
    write_json(checkpoint / file, {**before, **fields})
    with pytest.raises(UnsafeCheckpointError) as caught:
        inspect_checkpoint(checkpoint)
    assert says in caught.value.message
    assert caught.value.exit_status == 11
    assert "--trust-remote-code" in str(caught.value.hint)


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": None, "trust_remote_code": False, "custom_pipelines": {}, "_attn_implementation_internal": None},
        {"_attn_implementation": "flash_attention_2", "attn_implementation": None, "text_config": {"auto_map": {}}},
    ],
)
def test_fields_that_name_nothing_are_allowed(checkpoint: Path, fields: dict[str, object]) -> None:
    write_json(checkpoint / "config.json", llama_config(**fields))
    assert inspect_checkpoint(checkpoint).has_code == ()


def test_a_word_of_a_vocabulary_is_no_field(checkpoint: Path) -> None:
    write_json(checkpoint / "vocab.json", {"auto_map": 7, "trust_remote_code": 8})
    assert "vocab.json" in inspect_checkpoint(checkpoint).files


def test_a_field_escaped_in_json_is_the_same_field(checkpoint: Path) -> None:
    (checkpoint / "tokenizer_config.json").write_text('{"auto\\u005fmap": {"AutoTokenizer": ["m.C", null]}}')
    assert "auto_map in tokenizer_config.json" in refusal(checkpoint, UnsafeCheckpointError)


def test_a_configuration_that_cannot_be_understood_is_refused_too(checkpoint: Path) -> None:
    (checkpoint / "tokenizer_config.json").write_text('{"auto_map": ')
    assert "tokenizer_config.json is not JSON" in refusal(checkpoint)


def test_of_much_code_the_first_is_named(checkpoint: Path) -> None:
    for number in range(8):
        (checkpoint / f"module_{number}.py").touch()
    message = refusal(checkpoint, UnsafeCheckpointError)
    assert message.endswith("module_0.py, module_1.py, module_2.py, module_3.py, module_4.py and 3 more")


def test_a_name_with_control_characters_is_shown_harmlessly(checkpoint: Path) -> None:
    (checkpoint / "\x1b[2J.py").touch()
    assert refusal(checkpoint, UnsafeCheckpointError).endswith(r"\x1b[2J.py")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.pkl", "m.ckpt"])
def test_weights_that_are_only_pickles_are_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_bytes(PICKLE)
    assert name not in inspect_checkpoint(checkpoint).files
    (checkpoint / "model.safetensors").unlink()
    assert f"its weights are pickles, which can run code when they are read: {name}" in refusal(
        checkpoint, UnsafeCheckpointError
    )


# -- with trust --------------------------------------------------------------------------------------------------------


def test_with_trust_code_is_allowed_and_named(checkpoint: Path) -> None:
    write_json(checkpoint / "tokenizer_config.json", tokenizer_config(auto_map={"AutoTokenizer": ["m.C", None]}))
    (checkpoint / "m.py").touch()
    found = inspect_checkpoint(checkpoint, trust_remote_code=True)
    assert found.has_code == ("m.py", "auto_map in tokenizer_config.json")
    assert set(found.files) == {*DATA, "m.py"}


def test_with_trust_pickles_are_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(PICKLE)
    found = inspect_checkpoint(checkpoint, trust_remote_code=True)
    assert found.weights == (("pytorch_model.bin", len(PICKLE)),)
    assert (found.parameters, found.has_code) == (0, ("pytorch_model.bin (a pickle)",))
    assert "pytorch_model.bin" in found.files


def test_trust_does_not_mend_damage(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(PICKLE + bytes(60))
    with pytest.raises(BadCheckpointError, match="a pickle under the name of a safetensors file"):
        inspect_checkpoint(checkpoint, trust_remote_code=True)
