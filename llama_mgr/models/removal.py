"""Removing models of our own directory: exactly their files, nothing through links, nothing that is in use."""

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import InUseError, NotFoundError, RefusedError
from llama_mgr.locks import held_lock
from llama_mgr.models.library import Catalog, Library
from llama_mgr.models.model import Model
from llama_mgr.models.model_lock import lock_name
from llama_mgr.models.roots import Root, Roots, absolute, real_path
from llama_mgr.models.side_car import has_own_side_car, side_car_of
from llama_mgr.paths import Home
from llama_mgr.report import Reporter, SilentReporter
from llama_mgr.store import make_durable, storage_errors

Running = Callable[[], Mapping[Path, Sequence[str]]]
"""Returns which model files running servers use: each resolved path with the servers, in words."""

_BUSY_TIMEOUT_S = 5.0
_SUFFIX = ".gguf"


@dataclass(frozen=True)
class Doomed:
    """Files that go together: a model, a broken one, or a GGUF of another kind."""

    label: str
    """What to call it: a key, or a path."""
    name: str
    """The model's name, whose lock is held meanwhile."""
    files: tuple[Path, ...]
    projector: Path | None = None
    """Goes, too, unless another model has it."""
    users: tuple[Path, ...] = ()
    """The files of other models that this is a part of: a server that runs one of them uses it."""
    places: tuple[Path, ...] = ()
    """The directories of the files when it was chosen, links followed. Nothing is removed elsewhere."""


class Remover:
    """Removes models of a home.

    Args:
        home: whose.
        running: tells which files are in use.
        reporter: hears who is waited for.
    """

    def __init__(self, home: Home, running: Running, reporter: Reporter) -> None:
        self._home = home
        self._running = running
        self._reporter = reporter

    def doomed_models(self, models: Sequence[Model]) -> list[Doomed]:
        """Return what goes with `models`.

        Raises:
            RefusedError: one of them belongs to another tool.
            CorruptStateError: nobody can tell whether the directory that one lies in through a link is watched.
        """
        for model in models:
            if not model.root.is_own:
                raise _foreign(model.key, model.root)
        return [self._doomed(model) for model in models]

    def doomed_at(self, path: Path, catalog: Catalog) -> Doomed:
        """Return what goes with the file `path`: the model or the broken set that it belongs to, else it alone.

        Raises:
            NotFoundError: there is no such file.
            RefusedError: it is not a GGUF of our models directory.
            CorruptStateError: nobody can tell whether the directory that it lies in is watched.
        """
        place = absolute(path)
        is_there = os.path.lexists(place) or os.path.lexists(side_car_of(place))
        if is_there and not self._is_ours(place):
            raise self._refusal(place)
        model = catalog.holding(place)
        if model is not None and self._is_ours(place) and not _is_projector_of(place, model):
            return self.doomed_models([model])[0]
        for one in catalog.broken:
            if place in one.files and one.root.is_own:
                self._refuse_watched(str(one.path), _places(one.files))
                return Doomed(str(one.path), self._name_of(one.path), one.files, places=_places(one.files))
        if not is_there:
            raise NotFoundError("cannot remove", place, "there is no such file", hint="llama-mgr list")
        if model is not None and not model.root.is_own:
            raise _foreign(place, model.root)
        is_listed = model is not None and place in model.projectors
        if not place.name.endswith(_SUFFIX) or not (is_listed or self._is_inside(place)):
            raise self._refusal(place)
        self._refuse_watched(str(place), _places([place]))
        needing = [one for one in (*catalog.models, *catalog.duplicates) if place in one.projectors]
        users = tuple(file for one in needing for file in one.files)
        return Doomed(str(place), self._name_of(place), (place,), users=users, places=_places([place]))

    def require_unused(self, doomed: Sequence[Doomed]) -> None:
        """Refuse what a running server uses.

        Raises:
            InUseError: a server uses one of the files.
            CorruptStateError: a server runs of which nobody can tell what it uses.
        """
        used = self._running()
        for one in doomed:
            for file in (*one.files, *one.users, *([one.projector] if one.projector else [])):
                servers = used.get(real_path(file))
                if servers:
                    why = f"it is used by {', '.join(servers)}"
                    raise InUseError("cannot remove", one.label, why, hint="stop that server first")

    def files_of(self, doomed: Sequence[Doomed]) -> list[Path]:
        """Return all GGUF files that go with `doomed`, projectors that nothing else needs included."""
        going = list(dict.fromkeys(file for one in doomed for file in one.files))
        projectors = dict.fromkeys(one.projector for one in doomed if one.projector is not None)
        if projectors:
            catalog = Library(self._home, SilentReporter()).catalog()  # as it is now
            going += [one for one in projectors if one not in going and not _is_needed(one, going, catalog)]
        return going

    def remove(self, doomed: Sequence[Doomed]) -> int:
        """Remove the files with their side-cars, and directories that become empty; return the bytes freed.

        On disk after a kill: files that were not reached yet, without their side-cars at most. A set that lost a shard
        is listed as broken; its path removes the rest.

        Raises:
            InUseError: a server uses one of the files; nothing was removed.
            BusyError: another command works on one of the models; those before it are gone.
            RefusedError: a file does not lie in our models directory after all; it stays.
            StorageError: the disk failed.
        """
        freed_bytes = 0
        self.require_unused(doomed)
        for one in doomed:
            purpose = f"rm {one.label}"
            with held_lock(self._home, lock_name(one.name), purpose, self._reporter, _BUSY_TIMEOUT_S):
                self.require_unused([one])  # a server may have been started while this waited
                # The projector first: without its model nobody would see it any more.
                for file in reversed(self.files_of([one])):
                    freed_bytes += self._removed_bytes(file, one.places)
        return freed_bytes

    # -- one file ------------------------------------------------------------------------------------------------------

    def _removed_bytes(self, file: Path, places: Sequence[Path]) -> int:
        freed_bytes = 0
        with (
            storage_errors("cannot remove", file),
            contextlib.suppress(FileNotFoundError),  # another rm was here
            held_directory(file, places) as directory,
        ):
            # The side-car first: a file without one is a model all the same, and can be removed again.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.lstat(file.name, dir_fd=directory).st_mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
            if has_own_side_car(file):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(side_car_of(file).name, dir_fd=directory)
            freed_bytes = size_on_disk(file.name, directory)
            os.unlink(file.name, dir_fd=directory)
            make_durable(directory)
        remove_empty(file.parent, self._home.models_dir, self._reporter)
        return freed_bytes

    def _is_inside(self, file: Path) -> bool:
        return real_path(file.parent).is_relative_to(real_path(self._home.models_dir))

    def _is_ours(self, file: Path) -> bool:
        """Tell the same; an owner or a repository may be a link to a directory elsewhere."""
        return file.is_relative_to(absolute(self._home.models_dir)) or self._is_inside(file)

    def _refusal(self, file: Path) -> RefusedError:
        """Return what is said of a file that is none of our models: whose it is, if it lies in a watched directory."""
        for root in Roots(self._home, self._reporter).watched():
            if file.is_relative_to(root.path) or real_path(file.parent).is_relative_to(real_path(root.path)):
                return _foreign(file, root)
        why = f"only .gguf files in {self._home.models_dir} are removed"
        return RefusedError("cannot remove", file, why, hint="delete it by hand if you are sure")

    def _refuse_watched(self, label: str, places: Sequence[Path]) -> None:
        """Refuse what an owner or a repository of ours that is a link has in the directory of another tool."""
        top = real_path(self._home.models_dir)
        elsewhere = [place for place in places if not place.is_relative_to(top)]
        for root in Roots(self._home, self._reporter).watched() if elsewhere else []:
            if any(place.is_relative_to(real_path(root.path)) for place in elsewhere):
                raise _foreign(label, root)

    def _doomed(self, model: Model) -> Doomed:
        projector = model.projector
        if projector is not None and not projector.is_relative_to(model.root.path):
            projector = None  # that of a copy elsewhere
        places = _places([*model.files, *([projector] if projector else [])])
        self._refuse_watched(model.key, places)
        return Doomed(model.key, model.name, model.files, projector, places=places)

    def _name_of(self, path: Path) -> str:
        """Return the `owner/repo` of a path, as `pull` would lock it."""
        top = self._home.models_dir
        if path.is_relative_to(top):
            parts = path.parent.relative_to(top).parts
        else:
            parts = real_path(path.parent).relative_to(real_path(top)).parts
        return "/".join([*parts, "", ""][:2]) if len(parts) > 1 else f"{(*parts, 'local')[0]}/{path.name}"


def _places(files: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(real_path(file.parent) for file in files))


def _is_needed(projector: Path, going: Sequence[Path], catalog: Catalog) -> bool:
    """Tell whether a model that stays has the projector, or a set beside it that is not whole yet may need it."""
    for model in (*catalog.models, *catalog.duplicates):
        if projector in model.projectors and model.files[0] not in going:
            return True
    around = projector.parent
    unfinished = [file for one in catalog.broken for file in one.files if file != projector and file not in going]
    return any(file.is_relative_to(around) for file in unfinished)


def _is_projector_of(path: Path, model: Model) -> bool:
    return model.projector is not None and path.name == model.projector.name and path not in model.files


@contextlib.contextmanager
def held_directory(file: Path, places: Sequence[Path]) -> Iterator[int]:
    """Open the directory of `file`, which must be one of `places` when all links are followed.

    What happens through the descriptor happens there, whatever becomes of the path meanwhile.

    Raises:
        RefusedError: it is another directory.
    """
    place = real_path(file.parent)
    if place not in places:
        why = f"its directory became a link to {place} meanwhile"
        raise RefusedError("cannot remove", file, why, hint="delete it by hand if you are sure")
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_empty(directory: Path, models_dir: Path, reporter: Reporter) -> None:
    """Remove `directory` and those above it that are empty, up to the models directory."""
    top = real_path(models_dir)
    place = real_path(directory)
    while place != top and place.is_relative_to(top):
        try:
            place.rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                reporter.warn(f"{place} stays: {error.strerror}")
            if error.errno != errno.ENOENT:
                return
        place = place.parent


def size_on_disk(name: str, directory: int) -> int:
    """Return what the disk gains: nothing for links, and for files that have another name."""
    try:
        found = os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0


def _foreign(what: object, root: Root) -> RefusedError:
    return RefusedError(
        "cannot remove", what, f"it lies in {root.path}, which is only watched",
        hint=f"llama-mgr index remove {shlex.quote(str(root.path))}   (to list it no longer)",
    )  # fmt: skip
