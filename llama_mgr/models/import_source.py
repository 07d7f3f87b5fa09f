"""What `import` was given: the models of a file or a directory, with all files that belong to each, and their names."""

import stat
from collections.abc import Sequence
from pathlib import Path

from llama_mgr.errors import (
    BadGgufError,
    BadInputError,
    BadReferenceError,
    IncompleteModelError,
    NotFoundError,
    RefusedError,
    StorageError,
)
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.grouping import Group, grouped, single
from llama_mgr.models.headers import Headers
from llama_mgr.models.model import Broken
from llama_mgr.models.naming import LOCAL_OWNER, model_part
from llama_mgr.models.quants import is_projector
from llama_mgr.models.reference import HubRef, parse_reference
from llama_mgr.models.repo_path import checked_repo_path
from llama_mgr.models.roots import Root
from llama_mgr.models.scan import scan, scan_beside
from llama_mgr.models.traits import traits_of
from llama_mgr.report import Reporter
from llama_mgr.text import printable


def models_at(given: Path, headers: Headers, reporter: Reporter) -> list[Group]:
    """Return the model that `given` is a file of, or all models of the directory `given`.

    Raises:
        NotFoundError: there is nothing, or no model in the directory.
        BadGgufError: it is no GGUF.
        IncompleteModelError: a split model lacks a shard.
        BadInputError: it is a GGUF of another kind.
        StorageError: it cannot be read.
    """
    try:
        is_directory = stat.S_ISDIR(given.stat().st_mode)
    except OSError as error:
        raise _missing(given, error) from error
    if not is_directory:
        read_gguf(given)  # says best what is wrong
    found = scan(Root(given, "folder")) if is_directory else scan_beside(given)
    for remark in found.remarks:
        reporter.warn(remark)
    headers.read(found.found)
    groups, broken = grouped(found, headers)
    return _of_directory(given, groups, broken, reporter) if is_directory else _of_file(given, groups, broken)


def any_gguf_at(path: Path, headers: Headers) -> Group:
    """Return what the GGUF file `path` is, also when it is no model: an adapter, a projector, one shard of many.

    Raises:
        NotFoundError: there is no such file.
        BadGgufError: it is no GGUF.
        StorageError: it cannot be read.
    """
    read_gguf(path)  # says best what is wrong
    found = scan_beside(path)
    groups, _ = grouped(found, headers)
    mine = next((group for group in groups if any(one.path == str(path) for one in group.found)), None)
    return mine or single(found, str(path), headers)


def _of_directory(given: Path, groups: list[Group], broken: Sequence[Broken], reporter: Reporter) -> list[Group]:
    if not groups and broken:
        raise _broken_error(broken[0])
    if not groups:
        raise NotFoundError("cannot import", given, "no GGUF model is in it or below it")
    for one in broken:
        reporter.warn(f"{one.path} is left out: {one.why}")
    return groups


def _of_file(given: Path, groups: Sequence[Group], broken: Sequence[Broken]) -> list[Group]:
    mine = [group for group in groups if any(one.path == str(given) for one in group.found)]
    if mine:
        return mine
    at_fault = next((one for one in broken if given in one.files), None)
    if at_fault is not None:
        raise _broken_error(at_fault)
    kind = traits_of(read_gguf(given), given.name).kind
    if kind == "mmproj":
        hint = "import the model: a projector that lies beside it comes along"
        raise BadInputError("cannot import", given, "it is a projector (mmproj), not a model", hint=hint)
    raise BadInputError("cannot import", given, f"it is a GGUF of the kind '{printable(kind)}', not a model")


def _missing(given: Path, error: OSError) -> NotFoundError | StorageError:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return StorageError("cannot import", given, error.strerror or str(error))
    if given.is_symlink():
        return NotFoundError("cannot import", given, "it is a link that leads nowhere")
    hint = "`import` takes files of this machine; `llama-mgr pull OWNER/REPO` fetches a model"
    return NotFoundError("cannot import", given, "there is no such file or directory", hint=hint)


def _broken_error(broken: Broken) -> BadGgufError | IncompleteModelError:
    is_set = len(broken.files) > 1 or "shard" in broken.why
    return (IncompleteModelError if is_set else BadGgufError)("cannot import", broken.path, broken.why)


# -- names -------------------------------------------------------------------------------------------------------------


def paths_of(group: Group) -> list[Path]:
    """Return all files of a model: its shards in order, then its projector."""
    return [*(Path(one.path) for one in group.found), *group.model.projectors]


def default_name(group: Group) -> str:
    """Return what an imported model is called unless the user says so: `local/` and what its file is called."""
    file_name = Path(group.found[0].path).name
    title = group.model.traits.title
    is_named = file_name.lower().endswith(".gguf") and not is_projector(file_name)
    return f"{LOCAL_OWNER}/{model_part(file_name if is_named or not title else title)}"


def checked_model_name(name: str, option: str = "--name") -> str:
    """Return `name`, which the user gave to `option`, if it has the form `owner/repo`.

    Raises:
        BadInputError: it has another one.
    """
    try:
        reference = parse_reference(name)
    except BadReferenceError:
        reference = None
    if not isinstance(reference, HubRef) or reference.name != name:
        why = "the form is OWNER/REPO, each of letters, digits, '.', '_', '-'"
        raise BadInputError(f"cannot use {option}", name, why)
    return name


def target_name(group: Group, number: int) -> str:
    """Return the name in the library of file `number` of `paths_of(group)`: its own, where that can be used."""
    own = paths_of(group)[number].name
    if _is_usable(own):
        return own
    # A blob of Ollama's, say.
    stem = default_name(group).partition("/")[2]
    if number >= len(group.found):
        return f"mmproj-{stem}.gguf"
    quant = f"-{group.model.quant}" if group.model.quant else ""
    shard = f"-{number + 1:05d}-of-{len(group.found):05d}" if len(group.found) > 1 else ""
    return f"{stem}{quant}{shard}.gguf"


def _is_usable(file_name: str) -> bool:
    try:
        return file_name.endswith(".gguf") and not file_name.startswith(".") and bool(checked_repo_path(file_name))
    except RefusedError:
        return False
