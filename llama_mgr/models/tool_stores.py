"""What the stores of other tools hold: the caches of Hugging Face and llama.cpp, and Ollama's blobs."""

import contextlib
import os
import re
import stat
from pathlib import Path
from urllib.parse import urlsplit

from llama_mgr.errors import LlamaMgrError
from llama_mgr.models.foreign import HUB_FOLDER, MANIFEST, url_beside
from llama_mgr.models.naming import folder_name, name_part
from llama_mgr.models.ollama import stored_models
from llama_mgr.models.walk import (
    Found,
    Scan,
    found_file,
    is_candidate,
    is_directory,
    listing,
    status_of,
    status_or_none,
    walk,
)
from llama_mgr.store import read_bounded

_REF_LIMIT_BYTES = 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")
_IN_REPOSITORY = re.compile(r"/(?P<owner>[^/]+)/(?P<repo>[^/]+)/resolve/")


def add_store(result: Scan) -> None:
    """Add what lies in the store of another tool, whose layout `result.root.form` names."""
    if result.root.form == "ollama":
        _add_stored_models(result)
    else:
        # llama.cpp keeps both layouts in one directory: its own older one, and that of the hub.
        _add_hub_cache(result)
        _add_flat_cache(result)


def _add_hub_cache(result: Scan) -> None:
    """Add `models--<owner>--<repo>/snapshots/<commit>/…`, links to blobs that are named after their sha256."""
    for repository in listing(str(result.root.path)):
        if not repository.name.startswith(HUB_FOLDER) or not is_directory(repository):
            continue
        owner, _, repo = repository.name.removeprefix(HUB_FOLDER).partition("--")
        name = f"{name_part(owner)}/{name_part(repo)}" if repo else f"huggingface/{name_part(owner)}"
        for snapshot in _snapshots(repository.path):
            for _, _, entries in walk(result, snapshot):
                for entry in entries:
                    found = found_file(result, entry, name, snapshot) if is_candidate(entry) else None
                    if found is not None:
                        found.sha256 = _blob_sha256(entry)
                        result.found.append(found)


def _snapshots(repository: str) -> list[str]:
    """Return the directories of all commits, the one that `main` names first, then the newest."""
    directories = [entry for entry in listing(f"{repository}/snapshots") if is_directory(entry)]
    if len(directories) > 1:
        main = ""
        with contextlib.suppress(LlamaMgrError):
            main = read_bounded(Path(repository, "refs", "main"), _REF_LIMIT_BYTES).decode("ascii", "replace").strip()
        directories.sort(key=lambda entry: (entry.name != main, -_mtime_ns(entry)))
    return [entry.path for entry in directories]


def _mtime_ns(entry: os.DirEntry[str]) -> int:
    status = status_or_none(entry)
    return status.mtime_ns if status is not None else 0  # it vanished meanwhile


def _blob_sha256(entry: os.DirEntry[str]) -> str:
    if not entry.is_symlink():
        return ""
    try:
        target = os.readlink(entry.path)  # noqa: PTH115 (no Path for each file)
    except OSError:
        return ""
    *_, folder, name = ("", *target.split("/"))
    return name if folder == "blobs" and _SHA256.fullmatch(name) else ""


def _add_flat_cache(result: Scan) -> None:
    """Add the files of llama.cpp's older cache: `<owner>_<repo>_<file>.gguf`, with manifests and URLs beside them."""
    entries = listing(str(result.root.path))
    prefixes = _manifest_prefixes(entries)
    for entry in entries:
        if not is_candidate(entry):
            continue
        found = found_file(result, entry, _flat_name(entry, prefixes, str(result.root.path)), str(result.root.path))
        if found is not None:
            found.is_in_repository = False
            result.found.append(found)


def _manifest_prefixes(entries: list[os.DirEntry[str]]) -> dict[str, str]:
    """Return how the files of each repository begin, longest first, with the repository's name."""
    found = {}
    for entry in entries:
        parts = entry.name.removesuffix(".json").split("=")
        if entry.name.startswith(MANIFEST) and len(parts) == 4:  # noqa: PLR2004 (manifest, owner, repo, tag)
            found[f"{parts[1]}_{parts[2]}_"] = f"{name_part(parts[1])}/{name_part(parts[2])}"
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _flat_name(entry: os.DirEntry[str], prefixes: dict[str, str], directory: str) -> str:
    for prefix, name in prefixes.items():
        if entry.name.startswith(prefix):
            return name
    try:
        in_repository = _IN_REPOSITORY.search(urlsplit(url_beside(Path(entry.path))).path)
    except ValueError:
        in_repository = None
    if in_repository:
        return f"{name_part(in_repository['owner'])}/{name_part(in_repository['repo'])}"
    return folder_name(directory, entry.name)


def _add_stored_models(result: Scan) -> None:
    for one in stored_models(result.root.path, result.remarks):
        if isinstance(one, tuple):
            result.broken.append((str(one[0]), one[1]))
            continue
        found = _stored_file(result, one.blob, f"the weights of {one.name}", one.size_bytes)
        if found is None:
            continue
        found.name, found.sha256, found.is_in_repository = one.name, one.sha256, False
        if one.projector is not None:
            what = f"the projector of {one.name}"
            found.projector = _stored_file(result, one.projector, what, one.projector_bytes)
        if found.projector is not None:
            found.projector.sha256 = one.projector_sha256
        result.found.append(found)


def _stored_file(result: Scan, blob: Path, what: str, size_bytes: int) -> Found | None:
    """Return the file of a layer; None, with the reason in `result`, when it is not what its manifest says."""
    try:
        found = blob.stat()
    except OSError as error:
        why = f"{what}: {error.strerror}"
    else:
        if stat.S_ISREG(found.st_mode) and found.st_size == size_bytes:
            return Found(str(blob), "", status_of(found), str(blob.parent))
        why = f"{what}: its manifest says {size_bytes:,} bytes, and it has {found.st_size:,}"
    if (str(blob), why) not in result.broken:  # many models may have one projector
        result.broken.append((str(blob), why))
    return None
