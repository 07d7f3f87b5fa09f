"""The models on this disk: everything that can be served, from our own directory and from those that are watched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from llama_mgr.errors import CorruptStateError
from llama_mgr.models.fingerprint import without_duplicates
from llama_mgr.models.grouping import Group, grouped
from llama_mgr.models.headers import Headers
from llama_mgr.models.model import Broken, Model
from llama_mgr.models.roots import Root, Roots, real_path
from llama_mgr.models.scan import Scan, scan
from llama_mgr.names import canonical
from llama_mgr.paths import Home
from llama_mgr.report import Reporter

__all__ = ["Broken", "Catalog", "Library", "Model"]


@dataclass(frozen=True)
class Catalog:
    """What is on this disk. Each model has a key of its own; of equal content only one is among `models`."""

    models: tuple[Model, ...]
    broken: tuple[Broken, ...]
    duplicates: tuple[Model, ...] = ()
    """Models whose content one of `models` has, too; they are its `copies`."""
    missing_roots: tuple[Root, ...] = ()
    """Watched directories that are not there now, or cannot be read."""
    checkpoints: tuple[Path, ...] = ()
    """Directories of our own that may hold a checkpoint; `checkpoint_removal.checkpoint_in` tells which one."""

    def holding(self, path: Path) -> Model | None:
        """Return the model that the file `path` belongs to, as its weights or its projector."""
        place = real_path(path)
        every = [(file, one) for one in chain(self.models, self.duplicates) for file in (*one.files, *one.projectors)]
        for file, model in every:
            if file in (path, place):
                return model
        # Links on the way to the library; nothing of another name is looked at on the disk.
        return next((model for file, model in every if file.name == place.name and real_path(file) == place), None)


class Library:
    """Finds the models of a home. Headers are read once: `index.sqlite` remembers what they say.

    Args:
        home: whose; `models_dir` is the own root.
        reporter: hears of what cannot be read, and shows the reading of many new files.
    """

    def __init__(self, home: Home, reporter: Reporter) -> None:
        self._reporter = reporter
        self._roots = Roots(home, reporter)
        self._headers = Headers(home, reporter)

    def catalog(self) -> Catalog:
        """Return all models and all that is broken; new and changed files are read, and noted in the index.

        Raises:
            NewerStateError: the list of watched directories was written by a newer llama-mgr.
            StorageError: it cannot be read.
        """
        scans = [scan(root) for root in self._searched()]
        for remark in chain.from_iterable(one.remarks for one in scans):
            self._reporter.warn(remark)
        found = [found for one in scans for found in one.found]
        self._headers.read([*found, *(one.projector for one in found if one.projector is not None)])
        catalog = self._assembled(scans)
        self._headers.save([str(one.root.path) for one in scans if not one.is_there])
        return catalog

    def known(self) -> Catalog:
        """Return the models that the index knows and that are still there; nothing is read or written."""
        scans = [scan(root) for root in self._searched()]
        for one in scans:
            one.found = [found for found in one.found if self._headers.knows(found)]
            for found in one.found:
                if found.projector is not None and not self._headers.knows(found.projector):
                    found.projector = None
            one.broken = []
        return self._assembled(scans)

    def rebuild(self) -> Catalog:
        """Delete the index and make it anew from the files.

        Raises:
            StorageError: it cannot be deleted.
        """
        self._headers.forget()
        return self.catalog()

    def _searched(self) -> list[Root]:
        try:
            return [self._roots.own, *self._roots.watched()]
        except CorruptStateError as error:
            self._reporter.warn(f"only {self._roots.own.path} is searched: {error.message}")
            return [self._roots.own]

    def _assembled(self, scans: Sequence[Scan]) -> Catalog:
        groups: list[Group] = []
        broken: list[Broken] = []
        for one in scans:
            found, damaged = grouped(one, self._headers)
            groups += found
            broken += damaged
        models, duplicates = without_duplicates(groups, self._headers)
        return Catalog(
            tuple(_with_keys(models)),
            tuple(sorted(broken, key=lambda one: one.path)),
            tuple(duplicates),
            tuple(one.root for one in scans if not one.is_there and not one.root.is_own),
            tuple(Path(place) for one in scans for place in one.checkpoints),
        )


def _with_keys(models: Sequence[Model]) -> list[Model]:
    """Give each model a key that no other has: `name:QUANT`, else the name and the file, else the path.

    Models come in the order of preference: our own first.
    """
    taken: set[str] = set()
    found = []
    for model in models:
        for key in (model.key, f"{model.name}/{model.place}", str(model.files[0])):
            if canonical(key) not in taken:
                break
        taken.add(canonical(key))
        found.append(model if key == model.key else replace(model, own_key=key))
    return sorted(found, key=lambda model: (canonical(model.name), model.size_bytes, model.key))
