"""Where other tools keep their GGUF files, and how to tell from a directory whose it is.

Places and layouts: LM Studio's documentation ("Import models": `publisher/model/file.gguf`), huggingface_hub's guide
"Understand caching", common/hf-cache.cpp and older common/download.cpp of llama.cpp, docs/faq of Ollama.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import msgspec

from llama_mgr.errors import LlamaMgrError
from llama_mgr.models.roots import Form
from llama_mgr.models.walk import is_directory, listing
from llama_mgr.store import read_bounded

HUB_FOLDER = "models--"
"""How the folder of a repository begins in the Hugging Face cache."""
MANIFEST = "manifest="
"""How the name of a stored manifest begins in llama.cpp's older cache: `manifest=owner=repo=tag.json`."""
_URL_FILE_LIMIT_BYTES = 64 * 1024
_LOOKED_AT = 500
_PUBLISHER_DEPTH = 2
_SUFFIX = ".gguf"


class _Url(msgspec.Struct):
    url: str = ""


def usual_places(environ: Mapping[str, str], user_home: Path) -> list[Path]:
    """Return the directories where other tools keep models, as far as they are there now, each once."""
    cache = _paths(environ.get("XDG_CACHE_HOME", "")) or [user_home / ".cache"]
    hf_home = _paths(environ.get("HF_HOME", "")) or [one / "huggingface" for one in cache]
    candidates = [
        user_home / ".lmstudio" / "models",
        user_home / ".cache" / "lm-studio" / "models",
        *_paths(environ.get("HF_HUB_CACHE", "") or environ.get("HUGGINGFACE_HUB_CACHE", "")),
        *(one / "hub" for one in hf_home),
        *_paths(environ.get("LLAMA_CACHE", "")),
        *(one / "llama.cpp" for one in cache),
        user_home / "Library" / "Caches" / "llama.cpp",
        *_paths(environ.get("OLLAMA_MODELS", "")),
        user_home / ".ollama" / "models",
        Path("/usr/share/ollama/.ollama/models"),
    ]
    there = {candidate.resolve(): candidate for candidate in reversed(candidates) if _is_dir(candidate)}
    return list(reversed(there.values()))


def model_directory(directory: Path) -> Path:
    """Return the directory inside `directory` that holds the models, where a tool keeps other things beside them.

    `~/.ollama` and `~/.lmstudio` mean their `models`, `~/.cache/huggingface` means its `hub`.
    """
    if _is_ollama(directory / "models") or (directory.name == ".lmstudio" and _is_dir(directory / "models")):
        return directory / "models"
    if not _has_hub_folder(directory) and _has_hub_folder(directory / "hub"):
        return directory / "hub"
    return directory


def form_of(directory: Path) -> Form:
    """Return how models are laid out in `directory`; a plain folder when nothing speaks for a tool."""
    if _is_ollama(directory):
        return "ollama"
    if _is_llama_cpp_cache(directory):
        return "llama-cpp-cache"
    if _has_hub_folder(directory) or directory.parts[-2:] == ("huggingface", "hub"):
        return "hf-cache"
    if {".lmstudio", "lm-studio"} & set(directory.parts) or _has_only_publishers(directory):
        return "lm-studio"
    return "folder"


def url_beside(file: Path) -> str:
    """Return the URL that llama.cpp's older cache keeps in `<file>.json`; empty when there is none."""
    try:
        content = read_bounded(file.with_name(f"{file.name}.json"), _URL_FILE_LIMIT_BYTES)
        return msgspec.json.decode(content, type=_Url).url
    except (LlamaMgrError, msgspec.MsgspecError, RecursionError):
        return ""


def _paths(value: str) -> list[Path]:
    return [Path(value)] if value.startswith("/") and "\0" not in value else []


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # nobody may look
        return False


def _is_ollama(directory: Path) -> bool:
    return _is_dir(directory / "manifests") and _is_dir(directory / "blobs")


def _has_hub_folder(directory: Path) -> bool:
    return any(
        entry.name.startswith(HUB_FOLDER) and _is_dir(Path(entry.path, "snapshots"))
        for entry in listing(str(directory))
    )


def _is_llama_cpp_cache(directory: Path) -> bool:
    names = {entry.name for entry in listing(str(directory))}
    if any(name.startswith(MANIFEST) and name.endswith(".json") for name in names):
        return True
    models = [name for name in names if name.endswith(_SUFFIX)]
    if any(f"{name}.etag" in names for name in models):
        return True
    # Our side-cars have the same name, and no URL in them.
    return any(f"{name}.json" in names and url_beside(directory / name) for name in models)


def _has_only_publishers(directory: Path) -> bool:
    """Tell whether all models lie in `publisher/model/`, as far as a quick look shows."""
    depths = {depth for depth, name in islice(_files(directory), _LOOKED_AT) if name.lower().endswith(_SUFFIX)}
    return depths == {_PUBLISHER_DEPTH}


def _files(directory: Path) -> Iterator[tuple[int, str]]:
    pending = [(0, directory)]
    while pending:
        depth, place = pending.pop()
        for entry in listing(str(place)):
            if is_directory(entry):
                if depth <= _PUBLISHER_DEPTH and not entry.name.startswith("."):
                    pending.append((depth + 1, Path(entry.path)))
            else:
                yield depth, entry.name
