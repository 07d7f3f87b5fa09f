"""Which GGUF files lie below a root, and what each is called."""

import os
from pathlib import Path

from llama_mgr.models.naming import folder_name, model_part, projector_part, repository_name
from llama_mgr.models.quants import is_projector, shard_of
from llama_mgr.models.roots import Root
from llama_mgr.models.walk import (
    SUFFIX,
    Found,
    Scan,
    found_file,
    is_candidate,
    listing,
    status_or_none,
    walk,
)

__all__ = ["Found", "Scan", "scan", "scan_beside"]

_REPO_PARTS = 2
_CHECKPOINT = "checkpoint"  # as checkpoint.DIRECTORY_NAME, which every list would pay for


def scan(root: Root) -> Scan:
    """Return what lies below `root`; a root that cannot be searched gives a remark, never an error."""
    result = Scan(root)
    try:
        with os.scandir(root.path):
            pass
    except OSError as error:
        result.is_there = False
        if not (root.is_own and isinstance(error, FileNotFoundError)):
            result.remarks.append(f"cannot search {root.path}: {error.strerror}")
        return result
    if root.form in {"own", "lm-studio"}:
        _add_repositories(result, str(root.path))
    elif root.form == "folder":
        _add_folders(result, str(root.path))
    else:
        from llama_mgr.models.tool_stores import add_store  # noqa: PLC0415 (most lists need none of it)

        add_store(result)
    return result


def scan_beside(file: Path) -> Scan:
    """Return what belongs to the one model that `file` is a file of: other shards, and projectors for it.

    Whatever its name is, `file` itself is among what is found, or broken.
    """
    directory, wanted = str(file.parent), file.name
    result = Scan(Root(file.parent, "folder"))
    entries = listing(directory)
    for entry in entries:
        if entry.name == wanted or (is_candidate(entry) and _belongs(entry.name, wanted, entries)):
            found = found_file(result, entry, folder_name(directory, entry.name), directory)
            if found is not None:
                found.is_in_repository = False
                result.found.append(found)
    return result


def _belongs(file_name: str, wanted: str, entries: list[os.DirEntry[str]]) -> bool:
    """Tell whether a file is another shard of the model `wanted`, or a projector that can only be for it."""
    shard, own = shard_of(file_name), shard_of(wanted)
    if shard is not None and own is not None and (shard[0], shard[2]) == (own[0], own[2]):
        return True
    if not is_projector(file_name):
        return False
    named = projector_part(file_name)
    models = {model_part(one.name) for one in entries if is_candidate(one) and not is_projector(one.name)}
    return named == model_part(wanted) or (not named and models == {model_part(wanted)})


def _add_repositories(result: Scan, top: str) -> None:
    """Add `owner/repo/…`, which is how llama-mgr and LM Studio lay out their files."""
    for directory, parts, entries in walk(result, top):
        is_in_repository = len(parts) >= _REPO_PARTS
        repo_dir = "/".join((top, *parts[:_REPO_PARTS])) if is_in_repository else directory
        by_name = {entry.name: entry for entry in entries}
        for entry in entries:
            if is_candidate(entry):
                found = found_file(result, entry, repository_name(parts, entry.name), repo_dir)
                _add(result, found, by_name.get(f"{entry.name}.json"), is_in_repository=is_in_repository)
        if result.root.is_own:
            _add_orphans(result, directory, entries)
            if len(parts) == _REPO_PARTS + 1 and parts[-1] == _CHECKPOINT:
                result.checkpoints.append(directory)


def _add_folders(result: Scan, top: str) -> None:
    for directory, _, entries in walk(result, top):
        by_name = {entry.name: entry for entry in entries}
        for entry in entries:
            if is_candidate(entry):
                found = found_file(result, entry, folder_name(directory, entry.name), directory)
                _add(result, found, by_name.get(f"{entry.name}.json"), is_in_repository=False)


def _add(result: Scan, found: Found | None, side_car: os.DirEntry[str] | None, *, is_in_repository: bool) -> None:
    if found is not None:
        found.side_car = status_or_none(side_car)
        found.is_in_repository = is_in_repository
        result.found.append(found)


def _add_orphans(result: Scan, directory: str, entries: list[os.DirEntry[str]]) -> None:
    """Add the side-cars of our own models whose files are gone."""
    names = {entry.name for entry in entries}
    for name in sorted(names):
        file_name = name.removesuffix(".json")
        if name.endswith(f"{SUFFIX}.json") and not name.startswith(".") and file_name not in names:
            result.broken.append((f"{directory}/{file_name}", "it is gone; only its side-car is left"))
