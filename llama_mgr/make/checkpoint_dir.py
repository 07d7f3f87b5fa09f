"""A checkpoint on this disk: what it is, whether it is whole and safe, and what of it the converter may see."""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llama_mgr.errors import BadCheckpointError, BadInputError, NotFoundError
from llama_mgr.make.checkpoint_code import code_in, is_configuration, unsafe
from llama_mgr.make.checkpoint_weights import ADAPTER_CONFIG, PARAMS, Choice, chosen_weights, pickles_in
from llama_mgr.make.json_file import read_json
from llama_mgr.make.safetensors import SUFFIX, read_safetensors
from llama_mgr.models.checkpoint_files import data_files
from llama_mgr.paths import join_below
from llama_mgr.store import storage_errors

_CONFIG = "config.json"
_ENTRIES_LIMIT = 10_000
_NOT_SEARCHED = ".git"
_GGUF_MAGIC = b"GGUF"


class WeightsFile(NamedTuple):
    """One file of weights, by its name in the directory."""

    name: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class CheckpointDir:
    """A checkpoint that was looked at."""

    path: Path
    kind: Literal["model", "adapter"]
    config: dict[str, Any]
    """What says how it is built: config.json, params.json of Mistral's form, or adapter_config.json."""
    architectures: tuple[str, ...]
    """By which the converter may choose its code: that of the text, of the whole, of the image encoder."""
    weights: tuple[WeightsFile, ...]
    """In the order of shards."""
    parameters: int
    """How many numbers the weights are; 0 for pickles, which are not read."""
    dtypes: dict[str, int]
    """How many of them are of which type: `{"BF16": 134515008}`."""
    files: tuple[str, ...]
    """What the converter may see, relative; with trust, that is everything."""
    has_code: tuple[str, ...]
    """What could run code; empty unless that was allowed."""
    is_mistral: bool
    """It has Mistral's own form, which the converter wants to be told."""
    adapter_base: str
    """What an adapter says that it was trained on: a repository, or a path of somebody's machine."""

    @property
    def weights_bytes(self) -> int:
        """The size of all weights."""
        return sum(file.size_bytes for file in self.weights)


def inspect_checkpoint(
    directory: Path, *, trust_remote_code: bool = False, needs_weights: bool = True
) -> CheckpointDir:
    """Return what the checkpoint in `directory` is, after a look at all its names, configurations and headers.

    Nothing of it is run, and no weights are read.

    Args:
        directory: it.
        trust_remote_code: let it bring code, and weights as pickles.
        needs_weights: whether it must have weights; the base of an adapter need not.

    Raises:
        NotFoundError: there is no such directory.
        BadInputError: it is a file.
        UnsafeCheckpointError: it brings or names code, has its weights only as pickles, or links to files elsewhere.
        BadCheckpointError: it is no checkpoint, not whole, or damaged.
        StorageError: it cannot be read.
    """
    _require_directory(directory)
    names = _names_below(directory)
    files = frozenset(name for name in names if (directory / name).is_file())
    data = _data_of(files)
    if not trust_remote_code:
        _require_own(directory, [name for name in data if not name.endswith(SUFFIX)])
    code = code_in(directory, names, [name for name in data if is_configuration(name)])
    if code and not trust_remote_code:
        raise unsafe(directory, "it brings or names code", code)
    choice = chosen_weights(directory, files)
    pickles: tuple[str, ...] = ()
    if needs_weights and not choice.names:
        pickles = _pickles(directory, files, trust_remote_code=trust_remote_code)
    return _inspected(
        directory, choice, pickles,
        files=tuple(sorted(_unhidden(files) if trust_remote_code else {*data, *choice.names})),
        has_code=(*code, *(f"{name} (a pickle)" for name in pickles)),
    )  # fmt: skip


def _require_own(directory: Path, names: Collection[str]) -> None:
    """Refuse links to files elsewhere, whose text the converter would put into the GGUF; those of hub caches are known.

    Weights may lie elsewhere: of them, only tensors are read.
    """
    real = directory.resolve()
    repo = real.parent.parent  # models--OWNER--REPO/snapshots/REVISION
    root = repo if real.parent.name == "snapshots" and repo.name.startswith("models--") else real
    foreign = tuple(name for name in names if not (directory / name).resolve().is_relative_to(root))
    if foreign:
        raise unsafe(directory, "files in it are links to files elsewhere, whose text would get into the GGUF", foreign)


def _inspected(
    directory: Path, choice: Choice, pickles: tuple[str, ...], *, files: tuple[str, ...], has_code: tuple[str, ...]
) -> CheckpointDir:
    config = read_json(directory / (ADAPTER_CONFIG if choice.is_adapter else PARAMS if choice.is_mistral else _CONFIG))
    dtypes: Counter[str] = Counter()
    sizes = {name: (directory / name).stat().st_size for name in pickles}
    for name in choice.names:
        header = read_safetensors(directory / name)
        dtypes.update(header.dtypes)
        sizes[name] = header.size_bytes
    base = config.get("base_model_name_or_path") if choice.is_adapter else ""
    return CheckpointDir(
        path=directory, kind="adapter" if choice.is_adapter else "model", config=config,
        architectures=_architectures(config), weights=tuple(WeightsFile(*item) for item in sizes.items()),
        parameters=dtypes.total(), dtypes=dict(dtypes), files=files, has_code=has_code, is_mistral=choice.is_mistral,
        adapter_base=base if isinstance(base, str) else "",
    )  # fmt: skip


def stage_checkpoint(checkpoint: CheckpointDir, target: Path, *, trust_remote_code: bool = False) -> None:
    """Make the directory `target` of links to the files of `checkpoint`, so that what lies beside them is not there.

    Without trust these are data files, even of a checkpoint that was inspected with trust.

    Raises:
        StorageError: the disk is full or failing, or a file is gone.
    """
    names = checkpoint.files
    if not trust_remote_code:
        weights = (file.name for file in checkpoint.weights if file.name.endswith(SUFFIX))
        names = tuple(sorted({*_data_of(names), *weights}))
    with storage_errors("cannot make", target):
        target.mkdir(mode=0o700, parents=True)
        for name in names:
            link = join_below(target, *name.split("/"))
            link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            link.symlink_to((checkpoint.path / name).resolve(strict=True))


# -- what is there -----------------------------------------------------------------------------------------------------


def _require_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    if not directory.exists():
        raise NotFoundError("cannot find the checkpoint", directory, "there is no such directory")
    if _begins_as_gguf(directory):
        hint = "llama-mgr quantize FILE TYPE makes other quants of it"
        raise BadInputError("cannot convert", directory, "it is a GGUF already", hint=hint)
    why = "it is a file; a checkpoint is a directory"
    raise BadInputError("cannot convert", directory, why, hint="name the directory that has its config.json")


def _begins_as_gguf(file: Path) -> bool:
    with storage_errors("cannot read", file):
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            return opened.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC


def _names_below(directory: Path) -> list[str]:
    """Return what lies below `directory`, relative and sorted; links to directories are names like others."""
    found, pending = list[str](), [""]
    with storage_errors("cannot read", directory):
        while pending:
            below = pending.pop()
            with os.scandir(directory / below) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        found.append(below + entry.name)
                    elif entry.name != _NOT_SEARCHED:
                        pending.append(f"{below}{entry.name}/")
                    if len(found) + len(pending) > _ENTRIES_LIMIT:
                        why = f"more than {_ENTRIES_LIMIT:,} files lie in it: it is no checkpoint"
                        raise BadCheckpointError("cannot use the checkpoint", directory, why)
    return sorted(found)


def _unhidden(names: Collection[str]) -> list[str]:
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _data_of(names: Collection[str]) -> list[str]:
    return data_files(_unhidden(names))


def _pickles(directory: Path, files: Collection[str], *, trust_remote_code: bool) -> tuple[str, ...]:
    """Return the weights of a checkpoint that has no others, if that is allowed."""
    found = pickles_in(files)
    if not found:
        why = f"it has {'' if _CONFIG in files else f'no {_CONFIG} and '}no weights, which are model*{SUFFIX}"
        hint = "name the directory that they lie in"
        raise BadCheckpointError("cannot use the checkpoint", directory, why, hint=hint)
    if not trust_remote_code:
        raise unsafe(directory, "its weights are pickles, which can run code when they are read", found)
    return found


# -- what it is --------------------------------------------------------------------------------------------------------


def _architectures(config: dict[str, Any]) -> tuple[str, ...]:
    """Return what `get_model_architecture` of conversion/base.py (b11434) may choose, the text model first.

    For a few architectures it takes that of the whole all the same, and each version for others.
    """
    thinker = config.get("thinker_config")
    inner = thinker.get("text_config") if isinstance(thinker, dict) else None
    parts = (inner, config.get("lm_config"), config.get("llm_config"), config.get("text_config"), config)
    found = [name for part in (*parts, config.get("vision_config")) for name in _first_architecture(part)]
    mamba = config.get("ssm_cfg")
    if not found and isinstance(mamba, dict):  # checkpoints of Mamba from before transformers knew it
        return (f"{mamba.get('layer', 'Mamba')}ForCausalLM",)
    return tuple(dict.fromkeys(found))


def _first_architecture(part: object) -> tuple[str, ...]:
    names = part.get("architectures") if isinstance(part, dict) else None
    return tuple(name for name in names[:1] if isinstance(name, str)) if isinstance(names, list) else ()
