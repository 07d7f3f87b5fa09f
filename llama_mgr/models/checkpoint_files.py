"""Which files of a repository make up a checkpoint; what is a matter of taste is data in `checkpoint.toml`."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import msgspec

from llama_mgr.errors import BadInputError, UnknownModelError
from llama_mgr.models.hub import HubFile, HubRepo
from llama_mgr.toml_file import read_toml

_WEIGHTS = ".safetensors"
_MODELS = ".gguf"


class _Twins(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    kept: str
    left: str


class _Data(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    schema: int
    include: list[str]
    exclude: list[str]
    twins: list[_Twins]


@cache
def _known() -> _Data:
    return read_toml(Path(__file__).with_name("checkpoint.toml"), _Data)


def checkpoint_files(repo: HubRepo, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[HubFile]:
    """Return the files of `repo` that make up its checkpoint, in the order of the listing.

    Args:
        repo: the listing.
        include: patterns of what is wanted instead of the usual; all other rules are off then.
        exclude: patterns of what is not wanted besides.

    Raises:
        BadInputError: `include` asks for GGUF files, which are no part of a checkpoint.
        UnknownModelError: no weights are among them, or nothing matches `include`.
    """
    for pattern in include:
        if pattern.lower().endswith(_MODELS):
            why = "a GGUF is no part of a checkpoint"
            raise BadInputError("cannot use --include", pattern, why, hint=f"llama-mgr pull {repo.repo}")
    found = _included(repo, include) if include else _usual(repo)
    found = [file for file in found if not _matches(file.name, exclude)]
    has = repo.some_names() or "nothing"
    if include and not found:
        raise UnknownModelError(
            "cannot find such files in",
            repo.repo,
            f"it has {has}",
            hint="see --include and --exclude",
        )
    if not include and not any(file.name.endswith(_WEIGHTS) for file in found):
        raise UnknownModelError(
            "cannot find a checkpoint in", repo.repo, f"it has no {_WEIGHTS} files, but {has}",
            hint="name what you want with --include GLOB",
        )  # fmt: skip
    return found


def data_files(names: Sequence[str]) -> list[str]:
    """Return which of these paths are data of a checkpoint, in the same order; of twins, one."""
    data = _known()
    found = [name for name in names if _matches(name, data.include) and not _matches(name, data.exclude)]
    for twins in data.twins:
        if any(fnmatchcase(name, twins.kept) for name in found):
            found = [name for name in found if not fnmatchcase(name, twins.left)]
    return found


def patterns_with_code() -> tuple[list[str], list[str]]:
    """Return what to include and to exclude so that Python files come along."""
    return [*_known().include, "*.py"], list(_known().exclude)


def _included(repo: HubRepo, include: Sequence[str]) -> list[HubFile]:
    never = (".checkpoint.json", "checkpoint.json", f"*{_MODELS}.json", f"*{_MODELS}")  # records, and what has them
    return [file for file in repo.files if _matches(file.name, include) and not _matches(file.name, never)]


def _usual(repo: HubRepo) -> list[HubFile]:
    names = frozenset(data_files([file.name for file in repo.files]))
    return [file for file in repo.files if file.name in names]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
