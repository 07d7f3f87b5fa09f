"""What the hub tells about a repository, checked: its commit, its files with their hashes, its facts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llama_mgr.errors import RemoteError
from llama_mgr.models.repo_path import checked_listing
from llama_mgr.text import printable

ENTRIES_LIMIT = 20_000
_LISTED = 8
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIZE_LIMIT_BYTES = 1 << 50
_LICENSE_TAG = "license:"


@dataclass(frozen=True)
class HubFile:
    """One file at one moment: `revision` is a commit of 40 hex digits, `sha256` has 64.

    Small files that are not stored with LFS have no sha256, but the hash that git gives to a blob.
    """

    repo: str
    name: str
    revision: str
    sha256: str
    size_bytes: int
    git_sha1: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, in one line: `hf:owner/repo@revision/name`."""
        return f"hf:{self.repo}@{self.revision}/{self.name}"


@dataclass(frozen=True)
class HubRepo:
    """One repository at one commit; the names of its files are safe to become paths, all together."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]
    gated: bool
    license: str | None
    tags: tuple[str, ...]
    downloads: int
    updated_at: str | None

    def some_names(self) -> str:
        """Return the names of a few of its files, for messages; empty when there are none."""
        names = sorted((file.name for file in self.files), key=lambda name: (name.startswith("."), name))
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return printable(", ".join(names[:_LISTED]), 600) + more


@dataclass(frozen=True)
class HubModel:
    """One hit of a search; `ggufs` is how many GGUF files the repository lists."""

    repo: str
    downloads: int
    likes: int
    updated_at: str | None
    gated: bool
    ggufs: int


def commit_of(info: Any) -> str:  # noqa: ANN401 (the library's type, of which nothing is certain)
    """Return the commit that the hub names.

    Raises:
        ValueError: it names none.
    """
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        raise ValueError("no commit")
    return info.sha


def repository_of(repo: str, info: Any, entries: Iterable[Any]) -> HubRepo:  # noqa: ANN401
    """Return the repository `repo` from what the library understood of the hub's answers.

    Raises:
        RefusedError: a file name is not safe, or two are one.
        RemoteError: it has too many files.
        ValueError, TypeError, AttributeError: an answer makes no sense.
    """
    files = tuple(_files(repo, commit_of(info), entries))
    checked_listing(file.name for file in files)
    tags = tuple(str(tag) for tag in info.tags or ())
    license_tags = [tag.removeprefix(_LICENSE_TAG) for tag in tags if tag.startswith(_LICENSE_TAG)]
    return HubRepo(
        repo=_spelled(repo, info.id), commit=commit_of(info), files=files, gated=bool(info.gated),
        license=license_tags[0] if license_tags else None, tags=tags,
        downloads=_count(info.downloads), updated_at=_at(info.last_modified),
    )  # fmt: skip


def model_of(info: Any) -> HubModel:  # noqa: ANN401
    """Return a hit of a search from what the library understood; raises as `repository_of`."""
    names = [sibling.rfilename for sibling in info.siblings or ()]
    ggufs = sum(name.lower().endswith(".gguf") for name in names)
    return HubModel(
        str(info.id), _count(info.downloads), _count(info.likes), _at(info.last_modified), bool(info.gated), ggufs
    )


def _files(repo: str, commit: str, entries: Iterable[Any]) -> Iterable[HubFile]:
    for number, entry in enumerate(entries):
        if number >= ENTRIES_LIMIT:
            why = f"the repository has more than {ENTRIES_LIMIT:,} entries, which is the limit"
            raise RemoteError("cannot list", repo, why)
        if hasattr(entry, "size"):  # folders have none
            yield _file(repo, commit, entry)


def _file(repo: str, commit: str, entry: Any) -> HubFile:  # noqa: ANN401
    name, size_bytes, lfs = entry.path, entry.lfs.size if entry.lfs else entry.size, entry.lfs
    if not isinstance(name, str) or not isinstance(size_bytes, int) or not 0 <= size_bytes <= _SIZE_LIMIT_BYTES:
        raise TypeError("no file")
    digest = lfs.sha256 if lfs else entry.blob_id
    if not (_SHA256 if lfs else _COMMIT).fullmatch(digest):
        raise ValueError("no hash")
    return HubFile(repo, name, commit, digest if lfs else "", size_bytes, "" if lfs else digest)


def _spelled(asked: str, told: object) -> str:
    """Return the hub's spelling of the name that was asked for; names of moved repositories stay as asked."""
    return told if isinstance(told, str) and told.casefold() == asked.casefold() else asked


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _at(value: object) -> str | None:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else None
