"""Instances: names that point at builds, each with its history."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import msgspec

from llama_mgr import locks, store
from llama_mgr.build.record import BuildRecord, Builds
from llama_mgr.build.version import parsed_version
from llama_mgr.errors import (
    CorruptStateError,
    IntegrityError,
    LlamaMgrError,
    NameTakenError,
    NoPreviousBuildError,
    NotFoundError,
    RefusedError,
    UnknownInstanceError,
    UnknownToolError,
)
from llama_mgr.instances.own_build import checked_own_build, programs
from llama_mgr.names import checked_name, is_name
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.text import did_you_mean

KEPT_GENERATIONS = 5
LOCK_TIMEOUT_S = 24 * 3600.0  # a waiting install waits for a whole build


class WantedBuild(msgspec.Struct, kw_only=True, frozen=True):
    """What the user asked for; `update` asks for it again."""

    version: str = "latest"
    repo_url: str | None = None
    branch: str | None = None
    source: Literal["auto", "git", "snapshot"] = "auto"
    recipe: str = "cpu"
    parts: list[str] = []
    defines: dict[str, str] = {}
    targets: list[str] = []
    allow_http: bool = False
    python: bool | None = None
    """Whether the converter gets its Python environment; None when nobody said, as in records of older versions."""

    @property
    def moves(self) -> bool:
        """Whether the same words may mean another commit tomorrow."""
        return self.branch is not None or parsed_version(self.version).moves

    def with_usual_python(self, python: bool | None) -> "WantedBuild":
        """Return this with `python` where nobody said whether the converter gets its environment."""
        return self if self.python is not None else msgspec.structs.replace(self, python=python)


class Generation(msgspec.Struct, kw_only=True, frozen=True):
    """One build that the instance pointed at."""

    build_id: str
    version: str
    commit: str
    wanted: WantedBuild
    since: str


class Instance(msgspec.Struct, kw_only=True):
    """`instances/<name>.json`: what a name stands for."""

    name: str
    made_at: str
    generations: list[Generation] = []
    """Newest first: the first is what the instance is now. Empty for a linked instance."""
    linked: str | None = None
    """A directory of the user's own build; such an instance has no generations."""

    @property
    def current(self) -> Generation:
        """What the instance is now.

        Raises:
            CorruptStateError: the record lists no build.
        """
        if not self.generations:
            raise CorruptStateError(
                "cannot use the instance",
                self.name,
                "its record names no build",
                hint=f"llama-mgr uninstall {self.name}",
            )
        return self.generations[0]

    def build_ids(self) -> list[str]:
        """Return the builds that this instance keeps alive, the current one first."""
        return [generation.build_id for generation in self.generations]


class Instances:
    """All instances of a home. The record is the truth; the link `instances/<name>/current` follows it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._builds = Builds(home)

    def names(self) -> list[str]:
        """Return the names of all instances, sorted."""
        if not self._home.instances_dir.is_dir():
            return []
        return sorted(entry.stem for entry in self._home.instances_dir.glob("*.json") if is_name(entry.stem))

    def __iter__(self) -> Iterator[Instance]:
        """Yield all sound instances; damaged records are left to `doctor`."""
        for name in self.names():
            try:
                yield self.find(name)
            except LlamaMgrError:
                continue

    def find(self, name: str) -> Instance:
        """Return the instance `name`.

        Raises:
            BadNameError: it cannot be a name.
            UnknownInstanceError: there is none; the nearest is named.
            CorruptStateError: its record is damaged.
        """
        checked_name(name, taken=self.names())
        try:
            instance = store.read_document(self._file(name), "instance", Instance)
        except NotFoundError as error:
            hint = did_you_mean(name, self.names()) or f"make it with `llama-mgr install {name}`"
            raise UnknownInstanceError(
                "no instance has the name", name, "see `llama-mgr instance list`", hint=hint
            ) from error
        if instance.name != name or not all(is_name(build_id) for build_id in instance.build_ids()):
            raise CorruptStateError(
                "cannot read",
                self._file(name),
                "it names another instance or an impossible build",
                hint="run `llama-mgr doctor`",
            )
        return instance

    def find_or_none(self, name: str) -> Instance | None:
        """Return the instance `name`, or None when there is none. Raises as `find` does otherwise."""
        try:
            return self.find(name)
        except UnknownInstanceError:
            return None

    def locked(
        self, name: str, purpose: str, reporter: Reporter, timeout_s: float = LOCK_TIMEOUT_S
    ) -> AbstractContextManager[None]:
        """Hold the lock of the instance `name`, which need not exist; every change of a record is made under it.

        Raises:
            BadNameError, NameTakenError: it cannot be a name.
            BusyError: another process held it longer than `timeout_s`.
        """
        checked_name(name, taken=self.names())
        return locks.held_lock(self._home, f"instance-{name}", purpose, reporter, timeout_s)

    def point(self, name: str, build: BuildRecord, wanted: WantedBuild) -> Instance:
        """Make `name` stand for `build`; what it stood for before becomes an earlier generation.

        Where `wanted` does not say whether the converter gets its environment, what was said before holds.
        The record is written first, and is the commit; the link follows. The caller holds the instance's lock.

        Raises:
            NameTakenError: it is a linked instance.
        """
        instance = self.find_or_none(name) or Instance(name=name, made_at=store.now_at())
        if instance.linked is not None:
            raise linked_error(instance)
        if instance.generations:
            wanted = wanted.with_usual_python(instance.current.wanted.python)
        generation = Generation(
            build_id=build.build_id,
            version=build.plan.version,
            commit=build.plan.commit,
            wanted=wanted,
            since=store.now_at(),
        )
        if instance.generations and instance.current.build_id == build.build_id:
            instance.generations[0] = msgspec.structs.replace(generation, since=instance.current.since)
        else:
            earlier = [one for one in instance.generations if one.build_id != build.build_id]
            instance.generations = [generation, *earlier][:KEPT_GENERATIONS]
        self._commit(instance)
        return instance

    def link(self, name: str, directory: Path) -> Instance:
        """Make `name` stand for a directory of the user's own build, which is never changed or deleted by us.

        Raises:
            NotFoundError: the directory holds no llama.cpp program.
            NameTakenError: an instance that llama-mgr built has this name.
            RefusedError: the directory lies in our home.
        """
        existing = self.find_or_none(name)
        if existing is not None and existing.linked is None:
            raise NameTakenError(
                "cannot link", name, "an installed instance has this name", hint=f"llama-mgr uninstall {name}"
            )
        own = checked_own_build(directory, self._home)
        instance = Instance(name=name, made_at=store.now_at(), linked=str(own))
        self._commit(instance)
        return instance

    def roll_back(self, name: str) -> Instance:
        """Make `name` stand for its previous build again; offline. What it was becomes the older one.

        Raises:
            NoPreviousBuildError: there is no earlier build.
            IntegrityError: the earlier build is missing or damaged; nothing changed.
        """
        instance = self.find(name)
        if len(instance.generations) < 2:  # noqa: PLR2004
            raise NoPreviousBuildError("cannot roll back", name, "it has no earlier build")
        newest, previous, *older = instance.generations
        self.require_whole(instance, previous.build_id)
        instance.generations = [msgspec.structs.replace(previous, since=store.now_at()), newest, *older]
        self._commit(instance)
        return instance

    def trim(self, name: str, keep: int) -> None:
        """Forget all but the newest `keep` generations of `name` (at least the current one)."""
        instance = self.find(name)
        if len(instance.generations) > max(keep, 1):
            instance.generations = instance.generations[: max(keep, 1)]
            self._commit(instance)

    def replace_build(self, name: str, build_id: str, build: BuildRecord) -> None:
        """Put `build` where `build_id` is among the generations of `name`; the caller holds the instance's lock."""
        instance = self.find(name)
        generations: dict[str, Generation] = {}
        for one in instance.generations:
            now = build.build_id if one.build_id == build_id else one.build_id
            generations.setdefault(now, msgspec.structs.replace(one, build_id=now))  # no build is there twice
        instance.generations = list(generations.values())
        self._commit(instance)

    def require_whole(self, instance: Instance, build_id: str, *, by_hash: bool = False) -> None:
        """Check that a build of `instance` has all its files with their sizes; with `by_hash` also their sha256.

        Raises:
            IntegrityError: it is missing or damaged; `instance repair` makes it again.
        """
        hint = f"llama-mgr instance repair {instance.name}"
        try:
            record = self._builds.find(build_id)
            (self._builds.check_hashes if by_hash else self._builds.check_sizes)(record)
        except NotFoundError as error:
            why = f"its build {build_id} is missing or has no record"
            raise CorruptStateError("cannot use the instance", instance.name, why, hint=hint) from error
        except IntegrityError as error:
            error.hint = hint
            raise

    def remove_record(self, name: str) -> None:
        """Remove the record of `name`, which is the commit of an uninstall, then its link. Damaged records go, too.

        The directory stays, as the sign that an uninstall is not finished; `remove` takes it away.

        Raises:
            RefusedError: something that is not ours lies in the instance's directory.
            StorageError: the disk failed.
        """
        directory = join_below(self._home.instances_dir, name)
        self.require_removable(name)
        with store.storage_errors("cannot remove", directory):
            if self._home.instances_dir.is_dir():
                self._file(name).unlink(missing_ok=True)
                store.sync_dir(self._home.instances_dir)
            if directory.is_dir():
                for own in directory.iterdir():
                    own.unlink(missing_ok=True)
                store.sync_dir(directory)

    def remove(self, name: str) -> None:
        """Remove all that is left of the name; its builds stay until `gc`. Raises as `remove_record`."""
        self.remove_record(name)
        directory = join_below(self._home.instances_dir, name)
        with store.storage_errors("cannot remove", directory):
            if directory.is_dir():
                directory.rmdir()
                store.sync_dir(self._home.instances_dir)

    def is_half_removed(self, name: str) -> bool:
        """Tell whether an uninstall of `name` was killed after its commit."""
        return not self._file(name).exists() and join_below(self._home.instances_dir, name).is_dir()

    def require_removable(self, name: str) -> None:
        """Raise a RefusedError when the instance's directory is a link or holds more than our `current`."""
        directory = join_below(self._home.instances_dir, name)
        hint = "look at it, and delete it by hand if you are sure"
        if directory.is_symlink() or (directory.exists() and not directory.is_dir()) or directory.is_mount():
            raise RefusedError("cannot remove", directory, "it is not a directory that llama-mgr made", hint=hint)
        strangers = [entry for entry in directory.iterdir() if not _is_own_link(entry)] if directory.is_dir() else []
        if strangers:
            raise RefusedError("cannot remove", directory, f"{strangers[0].name} in it is not ours", hint=hint)

    def prefix(self, instance: Instance) -> Path:
        """Return the directory that the instance stands for: a build, or the linked directory."""
        return (
            Path(instance.linked) if instance.linked is not None else self._builds.directory(instance.current.build_id)
        )

    def build_of(self, instance: Instance) -> BuildRecord:
        """Return the build that the instance is now.

        Raises:
            CorruptStateError: it is gone or damaged; `instance repair` makes it again.
        """
        try:
            return self._builds.find(instance.current.build_id)
        except (NotFoundError, CorruptStateError) as error:
            raise CorruptStateError(
                "cannot use the instance",
                instance.name,
                f"the record of its build {instance.current.build_id} is missing or damaged",
                hint=f"llama-mgr instance repair {instance.name}",
            ) from error

    def program(self, instance: Instance, name: str) -> Path:
        """Return the absolute path of a llama.cpp program (`llama-server` or its canonical name `server`).

        Raises:
            UnknownToolError: this build has no such program; the nearest is named.
            IntegrityError: it had one when it was made.
        """
        known = {path.name: path for path in programs(self.prefix(instance))}
        if instance.linked is None:
            record = self.build_of(instance)
            bin_dir = self.prefix(instance) / "bin"
            recorded = {program: program for program in record.programs.values()} | record.programs
            known |= {called: bin_dir / program for called, program in recorded.items()}
        path = known.get(name) or known.get(f"llama-{name}")
        if path is None:
            raise UnknownToolError(
                f"the instance '{instance.name}' has no program",
                name,
                f"it has {', '.join(sorted(known)) or 'none'}",
                hint=did_you_mean(name, known),
            )
        if instance.linked is None and not path.is_file():
            self.require_whole(instance, instance.current.build_id)
        return path

    def link_of(self, instance: Instance) -> Path:
        """Return `instances/<name>/current`, which follows the record."""
        return join_below(self._home.instances_dir, instance.name, "current")

    def repair_link(self, instance: Instance) -> None:
        """Make `instances/<name>/current` agree with the record."""
        link = self.link_of(instance)
        target = self.prefix(instance)
        if not (link.is_symlink() and link.resolve() == target.resolve()):
            store.point(link, target)

    def _commit(self, instance: Instance) -> None:
        store.write_document(self._file(instance.name), "instance", instance)
        self.repair_link(instance)

    def _file(self, name: str) -> Path:
        return join_below(self._home.instances_dir, f"{name}.json")


def linked_error(instance: Instance) -> NameTakenError:
    """Return the error of an install into a linked instance."""
    return NameTakenError(
        "cannot install into",
        instance.name,
        f"it is linked to {instance.linked}",
        hint=f"llama-mgr uninstall {instance.name} (the linked directory stays)",
    )


def _is_own_link(entry: Path) -> bool:
    """Tell whether `entry` is `current`, or what a killed process left of a new one."""
    is_ours = entry.name == "current" or (entry.name.startswith(".current.") and entry.name.endswith(".tmp"))
    return is_ours and entry.is_symlink()
