"""The repositories of a `LocalHub`: files, commits and branches, in the words of the hub's API."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

LFS_SUFFIXES = (".gguf", ".bin", ".safetensors", ".pth", ".imatrix")
_POINTER_BYTES = 134


@dataclass(frozen=True)
class LocalFile:
    """One file, or the part of it that a range asks for; the content is bytes, or lies in a file of this machine."""

    name: str
    content: bytes | Path
    start: int = 0
    end: int | None = None
    listed_sha256: str | None = None
    """What the hub claims, where that shall not be so."""
    large: bool | None = None
    """Whether it is stored with LFS, where its name does not say so."""

    @cached_property
    def size_bytes(self) -> int:
        whole = len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size
        return (whole if self.end is None else self.end) - self.start

    @cached_property
    def sha256(self) -> str:
        return self.listed_sha256 or self._digest(hashlib.sha256())

    @cached_property
    def git_sha1(self) -> str:
        return self._digest(hashlib.sha1(b"blob %d\0" % self.size_bytes))  # noqa: S324 (git's own)

    @property
    def lfs(self) -> bool:
        return self.name.endswith(LFS_SUFFIXES) if self.large is None else self.large

    def part(self, start: int, end: int) -> "LocalFile":
        return replace(self, start=start, end=end)

    def chunks(self, size: int) -> Iterator[bytes]:
        end = self.start + self.size_bytes
        if isinstance(self.content, bytes):
            yield from (self.content[at : min(at + size, end)] for at in range(self.start, end, size))
            return
        with self.content.open("rb") as file:
            file.seek(self.start)
            for at in range(self.start, end, size):
                yield file.read(min(size, end - at))

    def _digest(self, digest: "hashlib._Hash") -> str:
        for chunk in self.chunks(1024 * 1024):
            digest.update(chunk)
        return digest.hexdigest()


@dataclass
class LocalRepo:
    """One repository; `branches` maps names to commits, `commits` maps commits to files."""

    name: str
    gated: str | bool = False
    private: bool = False
    license: str | None = "apache-2.0"
    tags: tuple[str, ...] = ()
    downloads: int = 100
    likes: int = 5
    updated_at: str = "2026-10-01T12:00:00.000Z"
    granted: set[str] = field(default_factory=set)
    """The tokens that may read a gated repository."""
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, LocalFile]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    """What those who uploaded said of their commits."""

    def commit(
        self, files: Mapping[str, bytes | Path], branch: str = "main", *, listed_sha256: Mapping[str, str] | None = None
    ) -> str:
        """Make `files` all that `branch` holds; return the commit."""
        made = {name: LocalFile(name, content) for name, content in files.items()}
        for name, sha256 in (listed_sha256 or {}).items():
            made[name] = replace(made[name], listed_sha256=sha256)
        commit = hashlib.sha1(f"{self.name} {branch} {len(self.commits)}".encode()).hexdigest()  # noqa: S324
        self.commits[commit] = made
        self.branches[branch] = commit
        return commit

    def commit_on_top(self, files: Iterable[LocalFile], message: str) -> str:
        """Add `files` to what `main` holds; return the commit."""
        commit = self.commit({})
        *_, before, _ = self.commits.values()
        self.commits[commit] = {**before, **{file.name: file for file in files}}
        self.messages[commit] = message
        return commit

    def commit_of(self, revision: str) -> str | None:
        """Return the commit that a branch, or the beginning of a commit, names."""
        if revision in self.branches:
            return self.branches[revision]
        return next((commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)), None)

    def stored(self, sha256: str, path: str) -> LocalFile | None:
        """Return the big file with this content."""
        found = (files.get(path) for files in self.commits.values())
        return next((file for file in found if file and file.sha256 == sha256), None)

    @property
    def all_tags(self) -> list[str]:
        has_gguf = any(name.endswith(".gguf") for name in self.commits[self.branches["main"]])
        return [*self.tags, *(["gguf"] if has_gguf else []), *([f"license:{self.license}"] if self.license else [])]

    def sort_value(self, order: str) -> object:
        return {"downloads": self.downloads, "likes": self.likes, "lastModified": self.updated_at}.get(order, 0)

    def info(self, commit: str, *, with_blobs: bool, expand: list[str] | None) -> dict[str, object]:
        """Return what `/api/models/<name>` says."""
        siblings = [{"rfilename": name, **(_blob(file) if with_blobs else {})} for name, file in self._files(commit)]
        whole: dict[str, object] = {
            "_id": "66b1c0ffee0000000000beef",
            "id": self.name,
            "modelId": self.name,
            "author": self.name.partition("/")[0],
            "sha": commit,
            "lastModified": self.updated_at,
            "createdAt": "2024-01-01T00:00:00.000Z",
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "downloads": self.downloads,
            "likes": self.likes,
            "library_name": "gguf",
            "pipeline_tag": "text-generation",
            "tags": self.all_tags,
            "cardData": {"license": self.license} if self.license else {},
            "siblings": siblings,
        }
        return {name: value for name, value in whole.items() if not expand or name in {"_id", "id", *expand}}

    def refs(self) -> dict[str, object]:
        """Return what `/api/models/<name>/refs` says."""
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in self.branches.items()
        ]
        return {"branches": branches, "converts": [], "tags": []}

    def tree(self, commit: str, directory: str, *, recursive: bool) -> list[dict[str, object]]:
        """Return what `/api/models/<name>/tree/<commit>/<directory>` says, unpaged."""
        prefix = f"{directory}/" if directory else ""
        below = [(name, file) for name, file in self._files(commit) if name.startswith(prefix)]
        shown = [_entry(name, file) for name, file in below if recursive or "/" not in name[len(prefix) :]]
        return [*(_folder(prefix + name) for name in _folders(below, prefix, recursive=recursive)), *shown]

    def _files(self, commit: str) -> list[tuple[str, LocalFile]]:
        return list(self.commits[commit].items())


def _folders(below: list[tuple[str, LocalFile]], prefix: str, *, recursive: bool) -> list[str]:
    found: dict[str, None] = {}
    for name, _ in below:
        parts = name[len(prefix) :].split("/")[:-1]
        for depth in range(1, len(parts) + 1 if recursive else min(len(parts), 1) + 1):
            found["/".join(parts[:depth])] = None
    return list(found)


def _folder(path: str) -> dict[str, object]:
    oid = hashlib.sha1(path.encode("utf-8", "surrogatepass")).hexdigest()  # noqa: S324
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def _entry(name: str, file: LocalFile) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "oid": file.git_sha1, "size": file.size_bytes, "path": name}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": _POINTER_BYTES}
    return entry


def _blob(file: LocalFile) -> dict[str, object]:
    lfs = {"sha256": file.sha256, "size": file.size_bytes, "pointerSize": _POINTER_BYTES}
    return {"size": file.size_bytes, "blobId": file.git_sha1, **({"lfs": lfs} if file.lfs else {})}
