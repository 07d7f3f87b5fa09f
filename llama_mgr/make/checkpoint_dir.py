"""A checkpoint on this disk: what it is, whether it is whole, and what of it the converter may see."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llama_mgr.errors import BadCheckpointError, BadInputError, NotFoundError
from llama_mgr.make.checkpoint_code import require_no_code, unsafe
from llama_mgr.make.json_file import read_json
from llama_mgr.make.safetensors import read_safetensors
from llama_mgr.models.checkpoint_files import is_checkpoint_file
from llama_mgr.paths import join_below
from llama_mgr.store import storage_errors
from llama_mgr.text import printable, size_words

_CONFIG, _PARAMS, _ADAPTER_CONFIG = "config.json", "params.json", "adapter_config.json"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_model.safetensors"
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "model*.bin")
# `get_model_architecture` of conversion/base.py prefers the text model's own, where a configuration has parts.
_TEXT_CONFIGS = ("text_config", "llm_config", "lm_config", "language_config")


@dataclass(frozen=True)
class CheckpointDir:
    """A checkpoint that was looked at."""

    path: Path
    kind: Literal["model", "adapter"]
    config: dict[str, Any]
    architectures: tuple[str, ...]
    weights: tuple[str, ...]
    """File names, in order."""
    weights_bytes: int
    parameters: int
    """Of all weights; 0 for those that were not read before."""
    dtypes: dict[str, int] = field(default_factory=dict)
    """How many parameters have each type: `{"BF16": 134515008}`."""
    files: tuple[str, ...] = ()
    """All that the converter may see, relative."""
    is_mistral: bool = False
    """It has the form of Mistral's own checkpoints: params.json and consolidated*.safetensors."""
    adapter_base: str = ""
    """What an adapter says that it was trained on."""


def inspect_checkpoint(
    directory: Path, *, trust_remote_code: bool = False, needs_weights: bool = True
) -> CheckpointDir:
    """Return what the checkpoint in `directory` is, after a look at its configuration and all headers of its weights.

    Args:
        directory: with config.json, or adapter_config.json.
        trust_remote_code: let it bring code, and weights as pickles, which are not looked at.
        needs_weights: whether a configuration alone is too little.

    Raises:
        NotFoundError: there is no such directory.
        BadInputError: it is a file.
        BadCheckpointError: it is no checkpoint, not whole, or damaged.
        UnsafeCheckpointError: it brings code, or only pickles.
    """
    _require_directory(directory)
    if not trust_remote_code:
        require_no_code(directory)
    is_adapter = (directory / _ADAPTER_CONFIG).is_file() and not (directory / _CONFIG).is_file()
    is_mistral = not (directory / _CONFIG).exists() and (directory / _PARAMS).is_file() and not is_adapter
    config = read_json(directory / (_ADAPTER_CONFIG if is_adapter else _PARAMS if is_mistral else _CONFIG))
    weights = _weights(directory, is_adapter=is_adapter, is_mistral=is_mistral)
    if not weights and needs_weights:
        weights = _pickles(directory, trust_remote_code=trust_remote_code)
    headers = [read_safetensors(directory / name) for name in weights if name.endswith(".safetensors")]
    dtypes: Counter[str] = Counter()
    for tensor in (tensor for header in headers for tensor in header.tensors):
        dtypes[tensor.dtype] += tensor.weights
    return CheckpointDir(
        directory, "adapter" if is_adapter else "model", config, _architectures(config), tuple(weights),
        sum((directory / name).stat().st_size for name in weights), sum(dtypes.values()), dict(dtypes),
        _staged_files(directory, weights, everything=trust_remote_code), is_mistral,
        printable(config.get("base_model_name_or_path") or "") if is_adapter else "",
    )  # fmt: skip


def stage_checkpoint(checkpoint: CheckpointDir, target: Path, *, trust_remote_code: bool = False) -> None:
    """Make the directory `target` with links to what the converter may see of `checkpoint`.

    Raises:
        StorageError: the disk failed.
    """
    del trust_remote_code  # `files` has been chosen by it
    with storage_errors("cannot make", target):
        target.mkdir(mode=0o700, parents=True)
        for name in checkpoint.files:
            place = join_below(target, *Path(name).parts)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.symlink_to((checkpoint.path / name).resolve(strict=True))


def _require_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    if not directory.exists():
        raise NotFoundError("cannot find the checkpoint", directory, "there is no such directory")
    is_gguf = directory.suffix.lower() == ".gguf"
    why = "it is a GGUF, which needs no conversion" if is_gguf else "it is a file, and a directory is needed"
    hint = f"llama-mgr quantize {directory} TYPE" if is_gguf else "name the directory with config.json"
    raise BadInputError("cannot convert", directory, why, hint=hint)


def _weights(directory: Path, *, is_adapter: bool, is_mistral: bool) -> list[str]:
    if is_adapter:
        return [_ADAPTER] if (directory / _ADAPTER).is_file() else []
    if (directory / _INDEX).is_file() and not is_mistral:
        return _indexed(directory)
    pattern = "consolidated*.safetensors" if is_mistral else "model*.safetensors"
    return sorted(file.name for file in directory.glob(pattern) if file.is_file())


def _indexed(directory: Path) -> list[str]:
    """Return the files that the index names, which must all be there."""
    places = read_json(directory / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise BadCheckpointError("cannot use the checkpoint", directory, f"{_INDEX} has no map of its weights")
    names = sorted(set(places.values()))
    for number, name in enumerate(names, 1):
        if "/" in name or "\\" in name or name.startswith(".") or not name.endswith(".safetensors"):
            why = f"{_INDEX} names {printable(name, 80)}, which is no safetensors file beside it"
            raise BadCheckpointError("cannot use the checkpoint", directory, why)
        if not (directory / name).is_file():
            why = f"shard {number} of {len(names)} is missing: {printable(name, 80)}"
            raise BadCheckpointError("cannot use the checkpoint", directory, why, hint="pull or copy it again")
    return names


def _pickles(directory: Path, *, trust_remote_code: bool) -> list[str]:
    """Return the weights that are pickles, if they may be read."""
    found = sorted({file.name for pattern in _PICKLES for file in directory.glob(pattern) if file.is_file()})
    if not found:
        why = "it has no weights: neither model*.safetensors nor what an index names"
        raise BadCheckpointError("cannot use the checkpoint", directory, why)
    if not trust_remote_code:
        size = size_words(sum((directory / name).stat().st_size for name in found))
        raise unsafe(
            directory, f"its weights are only there as pickles ({found[0]}, {size}), and reading one runs code"
        )
    return found


def _architectures(config: dict[str, Any]) -> tuple[str, ...]:
    places = [config.get(name) for name in _TEXT_CONFIGS]
    for place in (*places, config):
        names = place.get("architectures") if isinstance(place, dict) else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(dict.fromkeys(printable(name, 80) for name in names))
    return ()


def _staged_files(directory: Path, weights: list[str], *, everything: bool) -> tuple[str, ...]:
    """Return what the converter may see: the data of a checkpoint, or all files where code is trusted."""
    found = []
    for place, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            relative = Path(place, name).relative_to(directory).as_posix()
            if relative in weights or everything or is_checkpoint_file(relative):
                found.append(relative)
    return tuple(name for name in found if (directory / name).is_file())
