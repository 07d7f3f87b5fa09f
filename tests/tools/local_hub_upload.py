"""What a `LocalHub` does with what comes: repositories that are made, large files that are stored, commits.

The shapes are those of the public hub, as `huggingface_hub` reads them (_commit_api.py, lfs.py): whether a file is to
be stored, git's LFS batch with one address or one for each part, and a commit of one JSON document a line.
"""

import base64
import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.tools.local_hub_answer import RefusalError
from tests.tools.local_hub_repo import LFS_SUFFIXES, LocalFile, LocalRepo

if TYPE_CHECKING:
    from tests.tools.local_hub import LocalHub

Document = dict[str, Any]
_SAMPLE_BYTES = 512
_SMALL_BYTES = 1024 * 1024
_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


@dataclass
class Store:
    """The large files that arrived, by sha256, and how the hub wants them."""

    directory: Path
    part_bytes: int | None = None
    """Larger files come in parts of this size."""
    verifies: bool = True
    """Whether the hub wants to be told that a file has come."""
    is_blind: bool = False
    """Whether the storage takes any bytes for any file, until the hub is told."""
    place: str | None = None
    """Where the hub says that files are to be sent, if not to its storage."""
    regular: set[str] = field(default_factory=set)
    """Names of files that are to be part of the commit."""
    ignored: set[str] = field(default_factory=set)
    """Names of files that a .gitignore names."""
    unwanted: set[str] = field(default_factory=set)
    """Files by sha256 that are not taken."""
    complete: dict[str, Path] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    """How many bytes came for a file, those of broken tries among them."""
    addresses: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """Signature to the file and the part that it allows; None is the whole file."""

    def take(self, signature: str, chunks: Iterator[bytes]) -> str:
        """Keep what comes for a signed address; return its ETag."""
        if signature not in self.addresses:
            raise RefusalError(403, "SignatureDoesNotMatch")
        oid, number = self.addresses[signature]
        target, digest = self._file(oid, number), hashlib.sha256()
        with target.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                self.received[oid] += len(chunk)
        if number is None:
            self._finish(oid, digest.hexdigest())
        return f'"{digest.hexdigest()[:32]}"'

    def put_together(self, oid: str, parts: list[Document]) -> None:
        """Make one file of its parts."""
        numbers = {number for of, number in self.addresses.values() if of == oid and number is not None}
        if [part["partNumber"] - 1 for part in parts] != sorted(numbers) or not all(part["etag"] for part in parts):
            raise RefusalError(400, "InvalidPart")
        digest = hashlib.sha256()
        with self._file(oid, None).open("wb") as file:
            for number in sorted(numbers):
                content = self._file(oid, number).read_bytes()
                digest.update(content)
                file.write(content)
        self._finish(oid, digest.hexdigest())

    def require(self, oid: str, size_bytes: int) -> Path:
        """Return the file that arrived."""
        found = self.complete.get(oid)
        if found is None or found.stat().st_size != size_bytes:
            raise RefusalError(400, "an LFS pointer points to a file that does not exist")
        return found

    def verify(self, oid: str, size_bytes: int) -> None:
        """Raise where the file has not arrived, or is another one."""
        with self.require(oid, size_bytes).open("rb") as file:
            is_right = hashlib.file_digest(file, "sha256").hexdigest() == oid
        if not is_right:
            del self.complete[oid]
            raise RefusalError(400, "the file is not the announced one")

    def actions(self, oid: str, size_bytes: int, hub: "LocalHub") -> Document:
        """Return where to send a file, in the words of git's LFS."""
        verify = {"verify": {"href": f"{hub.url}/lfs/verify"}} if self.verifies else {}
        if self.part_bytes is None or size_bytes <= self.part_bytes:
            return {"upload": {"href": self._address(hub, oid, None)}, **verify}
        count = -(-size_bytes // self.part_bytes)
        parts = {f"{number + 1:05}": self._address(hub, oid, number) for number in range(count)}
        whole = {"href": f"{hub.url}/lfs/complete/{oid}", "header": {"chunk_size": str(self.part_bytes), **parts}}
        return {"upload": whole, **verify}

    def _address(self, hub: "LocalHub", oid: str, number: int | None) -> str:
        signature = secrets.token_hex(8)
        self.addresses[signature] = oid, number
        return f"{self.place or hub.storage_url}/lfs/{oid}?X-Signature={signature}"

    def _file(self, oid: str, number: int | None) -> Path:
        return self.directory / (oid if number is None else f"{oid}.{number}")

    def _finish(self, oid: str, sha256: str) -> None:
        if sha256 != oid and not self.is_blind:
            raise RefusalError(400, "BadDigest")
        self.complete[oid] = self._file(oid, None)


# -- what the hub itself is sent, as documents; each is answered by one ------------------------------------------------


def create(hub: "LocalHub", wanted: Document) -> Document:
    name = f"{wanted['organization']}/{wanted['name']}"
    url = f"{hub.url}/{name}"
    if name in hub.repos:
        raise RefusalError(409, "You already created this model repo", url=url)
    is_private = wanted.get("visibility") == "private"
    hub.add(name, {".gitattributes": b"*.gguf filter=lfs\n"}, private=is_private, license=None)
    return {"url": url}


def check_card(wanted: Document) -> Document:
    found = _FRONT_MATTER.match(wanted["content"])
    if found is None:
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
    if 'license: "made-up"' in found[1].split("\n"):
        errors = [{"message": '"license" must be one of [apache-2.0, mit]'}]
        raise RefusalError(400, "Invalid metadata in README.md", errors=errors)
    return {"errors": [], "warnings": []}


def upload_modes(hub: "LocalHub", repo: LocalRepo, wanted: Document) -> Document:
    there = repo.commits[repo.branches["main"]]
    return {"files": [_upload_mode(hub.store, there, one) for one in wanted["files"]]}


def _upload_mode(store: Store, there: dict[str, LocalFile], one: Document) -> Document:
    path, old = one["path"], there.get(one["path"])
    assert len(base64.b64decode(one["sample"])) <= _SAMPLE_BYTES
    is_large = path.endswith(LFS_SUFFIXES) or one["size"] > _SMALL_BYTES
    mode = "lfs" if is_large and path not in store.regular else "regular"
    oid = None if old is None else old.sha256 if old.lfs else old.git_sha1
    return {"path": path, "uploadMode": mode, "shouldIgnore": path in store.ignored, "oid": oid}


def batch(hub: "LocalHub", wanted: Document) -> Document:
    assert wanted["operation"] == "upload"
    assert wanted["hash_algo"] == "sha256"
    return {"transfer": "basic", "objects": [_batched(hub, one["oid"], one["size"]) for one in wanted["objects"]]}


def _batched(hub: "LocalHub", oid: str, size_bytes: int) -> Document:
    one: Document = {"oid": oid, "size": size_bytes}
    if oid in hub.store.unwanted:
        return {**one, "error": {"code": 422, "message": "this file is not wanted here"}}
    return one if oid in hub.store.complete else {**one, "actions": hub.store.actions(oid, size_bytes, hub)}


def commit(hub: "LocalHub", repo: LocalRepo, lines: list[Document]) -> Document:
    header, *operations = lines
    if header["value"].get("parentCommit") not in {None, repo.branches["main"]}:
        raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
    files = [_committed(hub.store, one["key"], one["value"]) for one in operations]
    made = repo.commit_on_top(files, header["value"]["summary"])
    return {"success": True, "commitOid": made, "commitUrl": f"{hub.url}/{repo.name}/commit/{made}"}


def _committed(store: Store, key: str, value: Document) -> LocalFile:
    if key == "file":
        return LocalFile(value["path"], base64.b64decode(value["content"]), large=False)
    assert key == "lfsFile"
    return LocalFile(value["path"], store.require(value["oid"], value["size"]), large=True)


def lines_of(body: bytes) -> list[Document]:
    return [json.loads(line) for line in body.splitlines()]
