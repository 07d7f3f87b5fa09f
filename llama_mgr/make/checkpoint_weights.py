"""The weights of a checkpoint: which files they are, and that all of them are there.

The rules are those of `index_tensors` in conversion/base.py of llama.cpp b11434: an index counts, else the names do.
"""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec

from llama_mgr.errors import BadCheckpointError
from llama_mgr.make.json_file import read_part
from llama_mgr.make.safetensors import SUFFIX
from llama_mgr.text import printable

ADAPTER_CONFIG = "adapter_config.json"
PARAMS = "params.json"

_ADAPTER = "adapter_model.safetensors"
_INDEX = "model.safetensors.index.json"
_INDEX_LIMIT_BYTES = 64 * 1024 * 1024  # that of Kimi K2, with 140,000 tensors, has 15 MB
_INDEX_KEYS_LIMIT = 500_000
_PICKLES = ("pytorch_model*.bin", "model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_OF_TRAINERS = ("optimizer*", "scheduler*", "scaler*", "rng_state*", "training_args*")
_SHARD = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})\.safetensors")


class Choice(NamedTuple):
    """The weights that the converter would read, and of which form the checkpoint is."""

    names: tuple[str, ...]
    is_adapter: bool = False
    is_mistral: bool = False


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def chosen_weights(directory: Path, names: Collection[str]) -> Choice:
    """Return which safetensors files are the weights; none where there are no such files.

    Args:
        directory: of the checkpoint.
        names: the files below it, relative.

    Raises:
        BadCheckpointError: the index is damaged, or a shard is missing.
        StorageError: the index cannot be read.
    """
    if _INDEX in names:
        return Choice(_indexed(directory, names))
    if found := _matching(names, "model*.safetensors"):
        return Choice(_with_all_shards(directory, found))
    if PARAMS in names and (found := _matching(names, "consolidated*.safetensors")):
        return Choice(_with_all_shards(directory, found), is_mistral=True)
    if ADAPTER_CONFIG in names and (_ADAPTER in names or "config.json" not in names):
        return Choice((_ADAPTER,) if _ADAPTER in names else (), is_adapter=True)
    return Choice(())


def pickles_in(names: Collection[str]) -> tuple[str, ...]:
    """Return the files that hold weights as pickles; what trainers leave behind is not among them."""
    found = {name for pattern in _PICKLES for name in _matching(names, pattern)}
    return tuple(sorted(found - {name for pattern in _OF_TRAINERS for name in _matching(names, pattern)}))


def _matching(names: Collection[str], pattern: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if "/" not in name and fnmatchcase(name, pattern)))


def _indexed(directory: Path, names: Collection[str]) -> tuple[str, ...]:
    shards = sorted(set(_index(directory).values()))
    for number, name in enumerate(shards, 1):
        if "/" in name or not name.isprintable() or not name.endswith(SUFFIX):
            why = f"{_INDEX} names '{printable(name, 80)}', and not a {SUFFIX} file beside it"
            raise BadCheckpointError("cannot use the checkpoint", directory, why)
        if name not in names:
            raise _missing(directory, name, number, len(shards))
    return tuple(shards)


def _index(directory: Path) -> dict[str, str]:
    content = read_part(directory / _INDEX, _INDEX_LIMIT_BYTES)
    if content.count(b":") > _INDEX_KEYS_LIMIT:
        why = f"{_INDEX} lists more than {_INDEX_KEYS_LIMIT:,} tensors, more than any model has"
        raise BadCheckpointError("cannot use the checkpoint", directory, why)
    try:
        found = msgspec.json.decode(content, type=_Index).weight_map
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = f"{_INDEX} does not say which tensor is in which file ({printable(error, 80)})"
        raise BadCheckpointError("cannot use the checkpoint", directory, why) from None
    if not found:
        raise BadCheckpointError("cannot use the checkpoint", directory, f"{_INDEX} lists no tensors")
    return found


def _with_all_shards(directory: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names`, after a look at their numbers, which say how many there are where no index does."""
    present = frozenset(names)
    sets = {(found["stem"], found["count"]) for name in names if (found := _SHARD.fullmatch(name))}
    for stem, count in sorted(sets):
        for number in range(1, int(count) + 1):
            wanted = f"{stem}-{number:05d}-of-{count}{SUFFIX}"
            if wanted not in present:
                raise _missing(directory, wanted, number, int(count))
    return names


def _missing(directory: Path, name: str, number: int, count: int) -> BadCheckpointError:
    why = f"{printable(name, 80)} is missing (shard {number} of {count})"
    return BadCheckpointError("cannot use the checkpoint", directory, why, hint="pull or copy it again")
