"""Removing what nothing needs any more: builds, old generations, and what killed commands left behind."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llama_mgr import staging, store
from llama_mgr.build import use
from llama_mgr.errors import BusyError, InUseError, LlamaMgrError
from llama_mgr.instances.installation import Installer, Running
from llama_mgr.names import is_name
from llama_mgr.paths import Home
from llama_mgr.report import Reporter

_BUSY_TIMEOUT_S = 0.0  # what is in use is no garbage


@dataclass
class Garbage:
    """What was removed, or would be."""

    builds: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """Build that no instance needs to why it stays all the same."""
    generations: dict[str, list[str]] = field(default_factory=dict)
    """Instance to the builds that it forgot."""
    staging: list[str] = field(default_factory=list)
    trash: int = 0
    instance_dirs: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    environments: list[str] = field(default_factory=list)
    freed_bytes: int = 0


class Collector:
    """Finds and removes garbage. Whatever a running command holds a lock on is left alone.

    Args:
        home: whose garbage.
        installer: knows the builds and what needs them.
        running: returns build id to the servers that run it now, in words.
        reporter: hears of what is left, and why.
        dry_run: only find it.
    """

    def __init__(
        self,
        home: Home,
        installer: Installer,
        running: Running,
        reporter: Reporter,
        *,
        dry_run: bool = False,
    ) -> None:
        self._home = home
        self._installer = installer
        self._running = running
        self._reporter = reporter
        self._dry_run = dry_run

    def collect(self, keep: int | None = None, only: str | None = None) -> Garbage:
        """Remove builds that nothing needs and leftovers; with `keep`, first forget older generations beyond that many.

        Args:
            keep: how many generations stay; None forgets none.
            only: the one instance that forgets; None is all of them.

        Raises:
            UnknownInstanceError: there is no instance `only`; nothing was removed.
            CorruptStateError: an instance's record is damaged: nobody knows which builds it needs; nothing was removed.
            StorageError: the disk failed.
        """
        instances = self._installer.instances
        records = [record for name in instances.names() if (record := instances.find_or_none(name))]
        trimmed = records if only is None else [instances.find(only)]
        garbage = Garbage()
        if keep is not None:
            for record in trimmed:
                self._trim(record.name, keep, garbage)
        self._remove_builds(garbage)
        self._remove_staging(garbage)
        self._remove_trash(garbage)
        self._remove_instance_dirs(garbage)
        self._remove_temporaries(garbage)
        return garbage

    def _remove_temporaries(self, garbage: Garbage) -> None:
        """Remove the unfinished documents, links and launchers of killed commands."""
        home = self._home
        for directory in (home.root, home.instances_dir, home.launchers_dir, *sorted(home.instances_dir.glob("*/"))):
            garbage.temporary += store.remove_temporaries(directory, dry_run=self._dry_run)

    def _trim(self, name: str, keep: int, garbage: Garbage) -> None:
        instances = self._installer.instances
        try:
            with instances.locked(name, "forget old generations", self._reporter, _BUSY_TIMEOUT_S):
                forgotten = instances.find(name).build_ids()[max(keep, 1) :]
                if forgotten and not self._dry_run:
                    instances.trim(name, keep)
        except BusyError as error:
            self._reporter.warn(f"the generations of {name} stay: {error.message}")
            return
        if forgotten:
            garbage.generations[name] = forgotten

    def _remove_builds(self, garbage: Garbage) -> None:
        for build_id in self._unneeded(garbage):
            size_bytes = tree_size_bytes(self._home.builds_dir / build_id)
            try:
                removed = self._removed_build(build_id)
            except LlamaMgrError as error:
                garbage.kept[build_id] = error.message
                self._reporter.warn(f"{build_id} stays: {error.message}")
                continue
            if removed:
                garbage.builds.append(build_id)
                garbage.freed_bytes += size_bytes

    def _removed_build(self, build_id: str) -> bool:
        if not self._dry_run:
            return self._installer.discard_unneeded(build_id, self._running)
        user = use.user_of(self._home, build_id)
        if user is not None:
            raise InUseError("cannot delete", build_id, f"it is in use: {user}")
        self._installer.require_undoubted(build_id)
        return True

    def _unneeded(self, garbage: Garbage) -> list[str]:
        unneeded = self._installer.unneeded_builds(self._running)
        if not self._dry_run:
            return unneeded
        # What a dry run would forget is still in the records.
        instances = self._installer.instances
        kept = {
            build_id
            for name in instances.names()
            for build_id in instances.find(name).build_ids()
            if build_id not in garbage.generations.get(name, [])
        }
        forgotten = {build_id for forgot in garbage.generations.values() for build_id in forgot}
        running = {build_id for build_id, servers in self._running().items() if servers}
        existing = self._installer.builder.builds.ids()
        return sorted({*unneeded, *(build_id for build_id in existing if build_id in forgotten - kept - running)})

    def _remove_staging(self, garbage: Garbage) -> None:
        for directory in staging.stale_staging(self._home):
            size_bytes = tree_size_bytes(directory)
            if self._dry_run or staging.remove_staging(self._home, directory, self._release):
                garbage.freed_bytes += size_bytes
                garbage.staging.append(directory.name)

    def _release(self, directory: Path) -> None:
        try:
            self._installer.builder.sources.release(directory / "source")
        except (LlamaMgrError, OSError) as error:
            self._reporter.warn(f"git's notes about {directory.name} stay until the next check-out: {error}")

    def _remove_trash(self, garbage: Garbage) -> None:
        if not self._home.trash_dir.is_dir():
            return
        garbage.freed_bytes += tree_size_bytes(self._home.trash_dir)
        garbage.trash = len(list(self._home.trash_dir.iterdir()))
        if not self._dry_run:
            staging.empty_trash(self._home)

    def _remove_instance_dirs(self, garbage: Garbage) -> None:
        """Remove `instances/<name>/` where a kill came between the removal of the record and that of the directory."""
        instances = self._installer.instances
        for name in self._names_without_record():
            try:
                with instances.locked(name, "remove what an uninstall left", self._reporter, _BUSY_TIMEOUT_S):
                    if name in instances.names():
                        continue
                    instances.require_removable(name)
                    if not self._dry_run:
                        instances.remove(name)
                garbage.instance_dirs.append(name)
            except LlamaMgrError as error:
                self._reporter.warn(f"{self._home.instances_dir / name} stays: {error.message}")

    def _names_without_record(self) -> Iterator[str]:
        if not self._home.instances_dir.is_dir():
            return
        named = set(self._installer.instances.names())
        for entry in sorted(self._home.instances_dir.iterdir()):
            if entry.is_dir() and not entry.is_symlink() and is_name(entry.name) and entry.name not in named:
                yield entry.name


def tree_size_bytes(root: Path) -> int:
    """Return the bytes of all regular files below `root`; what vanishes meanwhile counts as nothing."""
    total = 0
    for path in root.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                total += path.lstat().st_size
    return total
