"""Ollama's store, read only: which model each manifest names, and where its blobs are.

`manifests/<host>/<namespace>/<model>/<tag>` is a manifest in Docker's form, whose layers are the blobs `sha256-<hex>`
(types/model/name.go, manifest/ and server/ of Ollama). What is in them is not trusted: a digest that has not the form
of a sha256 names no file.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from llama_mgr.errors import LlamaMgrError
from llama_mgr.models.naming import name_part
from llama_mgr.models.quants import tag_in
from llama_mgr.models.walk import is_directory, listing
from llama_mgr.store import read_bounded
from llama_mgr.text import printable

_DIGEST = re.compile(r"sha256[:-](?P<hex>[0-9a-f]{64})")
_TYPE = "application/vnd.ollama.image."
_MANIFEST_LIMIT_BYTES = 1024 * 1024
_MANIFESTS_LIMIT = 100_000
_DEPTH = 4  # host, namespace, model, tag
_DEFAULT_TAG = "latest"


class _Layer(msgspec.Struct):
    media_type: str = msgspec.field(name="mediaType")
    digest: str
    size: int


class _Manifest(msgspec.Struct):
    layers: list[_Layer]


@dataclass(frozen=True)
class StoredModel:
    """One model of Ollama's: what to call it, and the files of its weights and of its projector."""

    name: str
    blob: Path
    sha256: str
    size_bytes: int
    projector: Path | None = None
    projector_sha256: str = ""
    projector_bytes: int = 0


def stored_models(directory: Path, remarks: list[str]) -> Iterator[StoredModel | tuple[Path, str]]:
    """Yield the models whose manifests lie in `directory`, and (manifest, what is wrong) for those that are damaged.

    Models without a GGUF (those that run in Ollama's cloud, or in another format) are left out.
    What is said of the store as a whole is added to `remarks`.
    """
    blobs = directory / "blobs"
    for manifest, parts in _manifests(directory / "manifests", remarks):
        try:
            layers = msgspec.json.decode(read_bounded(manifest, _MANIFEST_LIMIT_BYTES), type=_Manifest).layers
        except LlamaMgrError as error:
            yield manifest, error.message
            continue
        except (msgspec.MsgspecError, RecursionError) as error:
            yield manifest, f"it is no manifest of a model ({printable(error)})"
            continue
        model = _first(layers, "model")
        if model is None:
            continue
        digest = _DIGEST.fullmatch(model.digest)
        if digest is None:
            yield manifest, f"'{printable(model.digest)}' is no sha256"
            continue
        stored = StoredModel(_name(parts), blobs / f"sha256-{digest['hex']}", digest["hex"], model.size)
        projector = _first(layers, "projector")
        found = _DIGEST.fullmatch(projector.digest) if projector else None
        if projector is None or found is None:
            yield stored
        else:
            blob = blobs / f"sha256-{found['hex']}"
            yield replace(stored, projector=blob, projector_sha256=found["hex"], projector_bytes=projector.size)


def _first(layers: list[_Layer], kind: str) -> _Layer | None:
    return next((layer for layer in layers if layer.media_type == f"{_TYPE}{kind}"), None)


def _manifests(root: Path, remarks: list[str]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the files that lie four levels deep, with the names on the way."""
    pending: list[tuple[str, tuple[str, ...]]] = [(str(root), ())]
    left = _MANIFESTS_LIMIT
    while pending:
        place, parts = pending.pop()
        for entry in listing(place):
            names = (*parts, entry.name)
            if len(names) < _DEPTH and is_directory(entry):
                pending.append((entry.path, names))
            elif len(names) == _DEPTH and _is_file(entry) and not entry.name.startswith("."):
                if left == 0:
                    remarks.append(f"{root} has more than {_MANIFESTS_LIMIT:,} manifests; the rest is not read")
                    return
                left -= 1
                yield Path(entry.path), names


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself, say: reading it tells what is wrong
        return True


def _name(parts: tuple[str, ...]) -> str:
    """Return `namespace/model`, followed by the tag where that says more than "latest" and the quant."""
    _, namespace, model, tag = parts
    words = _without_quant(tag)
    return f"{name_part(namespace)}/{name_part(f'{model}-{words}' if words else model)}"


def _without_quant(tag: str) -> str:
    quant = tag_in(tag)
    if quant is not None and tag.upper().endswith(quant):
        tag = tag[: -len(quant)].rstrip("-_.")
    return "" if tag.lower() == _DEFAULT_TAG else tag
