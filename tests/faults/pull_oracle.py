"""What must hold of pulled models on disk after any crash or fault: a checker apart from the product.

It imports nothing of llama_mgr and knows the files alone:

M1  a file under its final name has the content that one of the repository's commits has for it
M2  shards that make a whole set are all of one commit
M3  a side-car stands beside its file, and says its size and sha256
M4  nothing else lies there but unfinished files; and none of those once a pull succeeded
M5  where the record of a checkpoint is, all its files are there, and are those of one commit
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.faults.oracle import document

Files = Mapping[str, bytes]
_UNFINISHED = re.compile(r"\..+\.(part|tmp|old)")
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")


def violations(place: Path, commits: Sequence[Files], *, settled: bool = False) -> list[str]:
    """Return what does not hold of the directory of a repository.

    Args:
        place: `models/owner/repo` of a home.
        commits: what the files may contain; the empty commit is always allowed.
        settled: the last pull succeeded: all files of the only commit are there, with side-cars, and nothing else is.
    """
    files = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
    models = {name: path.read_bytes() for name, path in files.items() if name.endswith(".gguf")}
    found = [*_contents(models, commits), *_mixtures(models, commits)]
    for name, path in files.items():
        if name.endswith(".gguf.json") and not path.name.startswith("."):
            found += _record_problems(path, models.get(name.removesuffix(".json")))
        elif name not in models and (settled or not _UNFINISHED.fullmatch(path.name)):
            found.append(f"M4 {name}: it should not be here")
    if settled:
        expected = {*commits[0], *(f"{name}.json" for name in commits[0])}
        found += [f"M4 {name}: it is missing" for name in sorted(expected - set(files))]
    return found


def checkpoint_violations(place: Path, commits: Sequence[Files], *, settled: bool = False) -> list[str]:
    """Return what does not hold of the directory of a checkpoint; arguments as for `violations`."""
    files = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    content = {name: data for name, data in files.items() if not _is_ours(name)}
    found = list(_contents(content, commits))
    if "checkpoint.json" in files:
        found += _checkpoint_problems(place / "checkpoint.json", content, commits)
    elif settled:
        found.append("M5 checkpoint.json: it is missing")
    if settled:
        left = sorted(files.keys() - commits[0].keys() - {"checkpoint.json"})
        found += [f"M4 {name}: it should not be here" for name in left]
    return found


def _is_ours(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base in {"checkpoint.json", ".checkpoint.json"} or _UNFINISHED.fullmatch(base) is not None


def _checkpoint_problems(path: Path, content: Files, commits: Sequence[Files]) -> list[str]:
    try:
        record = document(path, "checkpoint")
    except Exception as error:  # noqa: BLE001 (whatever cannot be read is a finding)
        return [f"M5 {error}"]
    listed = {one["name"]: one["size_bytes"] for one in record.get("files", [])}
    for commit in commits:
        if listed == {name: len(data) for name, data in commit.items()}:
            wrong = [name for name, data in commit.items() if content.get(name) != data]
            if not wrong:
                return []
    return [f"M5 {path.name}: its files are not those of one commit: {sorted(listed)}"]


def _contents(models: Files, commits: Sequence[Files]) -> Iterator[str]:
    for name, content in models.items():
        if content not in [commit.get(name) for commit in commits]:
            yield f"M1 {name}: {len(content)} bytes that no commit has"


def _mixtures(models: Files, commits: Sequence[Files]) -> Iterator[str]:
    sets: dict[tuple[str, str], list[str]] = {}
    for name in models:
        shard = _SHARD.fullmatch(name)
        if shard:
            sets.setdefault((shard[1], shard[2]), []).append(name)
    for (stem, count), names in sets.items():
        of_one = any(all(models[name] == commit.get(name) for name in names) for commit in commits)
        if len(names) == int(count) and not of_one:
            yield f"M2 {stem}: a whole set of shards of different commits"


def _record_problems(path: Path, content: bytes | None) -> list[str]:
    if content is None:
        return [f"M3 {path.name}: its file is missing"]
    try:
        record = document(path, "model")
    except Exception as error:  # noqa: BLE001 (whatever cannot be read is a finding)
        return [f"M3 {error}"]
    if (record.get("size_bytes"), record.get("sha256")) != (len(content), hashlib.sha256(content).hexdigest()):
        return [f"M3 {path.name}: it tells of another content"]
    return []
