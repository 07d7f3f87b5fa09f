"""A checkpoint from the hub: the files that `convert` needs, all of one commit, and a record that says they are whole.

The record `checkpoint.json` is written last; without it, the directory is unfinished. What is being fetched is written
down before in `.checkpoint.json`, so that the next pull knows which files came from here, and may replace them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from llama_mgr.errors import ConflictError, CorruptStateError, NotFoundError
from llama_mgr.models.checkpoint_files import checkpoint_files
from llama_mgr.models.content import Content, content_of
from llama_mgr.models.disk_space import Space, full_disk, require_room
from llama_mgr.models.hub import Hub, HubFile, HubRepo
from llama_mgr.models.model_lock import held_model
from llama_mgr.models.pull_plan import place_of
from llama_mgr.models.reference import HubRef
from llama_mgr.models.repo_path import checked_repo_path
from llama_mgr.models.shared_bar import Coming, shared_bar
from llama_mgr.partial import Partial, held_partial
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.store import now_at, read_document, remove_temporaries, storage_errors, sync_dir, write_document
from llama_mgr.text import printable

RECORD_KIND = "checkpoint"
RECORD_NAME = "checkpoint.json"
UNFINISHED_NAME = ".checkpoint.json"
DIRECTORY_NAME = "checkpoint"


class CheckpointFile(msgspec.Struct, frozen=True):
    """One file of a checkpoint; small ones have the hash that git gives them, and no sha256."""

    name: str
    size_bytes: int
    sha256: str = ""
    git_sha1: str = ""

    @property
    def content(self) -> Content:
        """What it contains."""
        return Content(self.sha256, self.size_bytes, self.git_sha1)


class CheckpointRecord(msgspec.Struct, kw_only=True):
    """What a checkpoint consists of, and where it came from."""

    repo: str
    revision: str
    downloaded_at: str
    files: list[CheckpointFile]


@dataclass(frozen=True)
class PulledCheckpoint:
    """A checkpoint that is on this disk now."""

    name: str
    directory: Path
    revision: str
    files: tuple[str, ...]
    bytes_fetched: int
    was_there: bool


class CheckpointPuller:
    """Fetches checkpoints into a home: to `<models>/<owner>/<repo>/checkpoint/`.

    Args:
        home: where they lie, and whose locks are taken.
        hub: where they come from.
        reporter: hears of waits and shows progress.
    """

    def __init__(self, home: Home, hub: Hub, reporter: Reporter) -> None:
        self._home = home
        self._hub = hub
        self._reporter = reporter

    def pull(
        self,
        ref: HubRef,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        directory: Path | None = None,
        force: bool = False,
    ) -> PulledCheckpoint:
        """Have the checkpoint of a repository, at one commit.

        On disk afterwards: the files as in the repository, and the record; what an earlier pull of more files brought
        stays part of it. After an error or a kill: no record, whole files, and partials from which the next call goes
        on.

        Args:
            ref: the repository.
            include: patterns of the files that are wanted instead of the usual ones.
            exclude: patterns of what is not wanted.
            directory: where the files go instead.
            force: do not ask whether the disk has room.

        Raises:
            UnknownRepositoryError: the hub has no such repository or revision.
            RemoteDeniedError: it wants a login.
            UnknownModelError: it has no such files.
            ConflictError: a file that came from elsewhere is in the way; or files would stay that are not asked for
                now, and are others at this commit.
            NoSpaceError: the disk has no room for all of it, or no longer.
            HashMismatchError: something else than promised arrived, twice.
            RemoteError: a file cannot be had.
        """
        repo = self._hub.repository(ref.name, ref.revision)
        files = checkpoint_files(repo, include, exclude)
        owner, _, name = repo.repo.partition("/")
        place = directory or join_below(self._home.models_dir, owner, name, DIRECTORY_NAME)
        with held_model(self._home, repo.repo, directory, f"pull the checkpoint {repo.repo}", self._reporter):
            work = _Work(place, repo, files, self._reporter, is_pruned=directory is None)
            fetched_bytes = work.do(self._hub, force=force)
        names = tuple(file.name for file in work.files)
        return PulledCheckpoint(repo.repo, place, repo.commit, names, fetched_bytes, work.was_there)


@dataclass
class _Work:
    """One pull of one checkpoint, under its lock."""

    place: Path
    repo: HubRepo
    files: Sequence[HubFile]
    reporter: Reporter
    is_pruned: bool
    """`index prune` looks there for what was begun."""
    was_there: bool = field(default=False, init=False)

    def do(self, hub: Hub, *, force: bool) -> int:
        """Have all files and the record; return how many bytes came over the network."""
        remove_temporaries(self.place)  # a kill may have left a half-written record
        old, is_whole = self._found()
        self.files = self._with_earlier(old)
        wanted = [file for file in self.files if not self._is_here(file, old if is_whole else None)]
        record = self._record()
        self.was_there = not wanted and is_whole
        if self.was_there and old and (old.revision, old.files) == (record.revision, record.files):
            return 0
        self._require_ours(wanted, old)
        if not force:
            require_room("pull", self.repo.repo, [self._space(file) for file in wanted])
        self._begin(record, old)
        fetched_bytes = self._fetch(wanted, hub)
        self._remove_superseded(old)
        write_document(self.place / RECORD_NAME, RECORD_KIND, record)
        with storage_errors("cannot remove", self.place / UNFINISHED_NAME):
            (self.place / UNFINISHED_NAME).unlink(missing_ok=True)
            sync_dir(self.place)
        return fetched_bytes

    def _found(self) -> tuple[CheckpointRecord | None, bool]:
        """Return what an earlier pull wrote down, and whether it came to its end."""
        for name in (UNFINISHED_NAME, RECORD_NAME):
            try:
                record = read_document(self.place / name, RECORD_KIND, CheckpointRecord)
            except NotFoundError:
                continue
            except CorruptStateError as error:
                raise ConflictError(
                    "cannot pull to", self.place, f"its {name} cannot be read: {error.message}",
                    hint="move the directory away, or pull to another place with --dir DIR",
                ) from error  # fmt: skip
            if record.repo != self.repo.repo:
                raise ConflictError(
                    "cannot pull to", self.place, f"it holds the checkpoint of {printable(record.repo)}",
                    hint="pull to another place with --dir DIR",
                )  # fmt: skip
            return record, name == RECORD_NAME
        return None, False

    def _with_earlier(self, old: CheckpointRecord | None) -> list[HubFile]:
        """Return what is asked for, and what is here of an earlier pull that asked for more: all is of one commit.

        Raises:
            ConflictError: something of it is another file at this commit.
        """
        asked = {file.name for file in self.files}
        recorded = {one.name: one.content for one in (old.files if old else []) if one.name not in asked}
        earlier = [file for file in self.repo.files if file.name in recorded]
        earlier = [file for file in earlier if os.path.lexists(place_of(self.place, file))]
        others = [file.name for file in earlier if recorded[file.name] != content_of(file)]
        if others and old:
            raise ConflictError(
                "cannot pull a part of the checkpoint to", self.place,
                f"{printable(', '.join(others), 200)} came with commit {printable(old.revision[:12])}, and would not "
                f"belong to {self.repo.commit[:12]}",
                hint="ask for all that is there (--include, --exclude), or pull to another place with --dir DIR",
            )  # fmt: skip
        taken = asked | {file.name for file in earlier}
        return [file for file in self.repo.files if file.name in taken]

    def _is_here(self, file: HubFile, whole: CheckpointRecord | None) -> bool:
        """Tell whether `file` is there: by the record of a pull that came to its end, else by its content."""
        target, content = place_of(self.place, file), content_of(file)
        is_recorded = whole is not None and any(one.name == file.name and one.content == content for one in whole.files)
        if is_recorded and target.is_file():
            with storage_errors("cannot read", target):
                return target.stat().st_size == content.size_bytes
        return content.is_in(target, self.reporter)

    def _require_ours(self, wanted: Sequence[HubFile], old: CheckpointRecord | None) -> None:
        ours = {one.name for one in old.files} if old else set()
        for file in wanted:
            target = place_of(self.place, file)
            if os.path.lexists(target) and (file.name not in ours or target.is_symlink()):
                raise self._not_ours(target)

    def _not_ours(self, target: Path) -> ConflictError:
        return ConflictError(
            "cannot replace", target, f"it did not come from {self.repo.repo}",
            hint="move it away, or pull to another place with --dir DIR",
        )  # fmt: skip

    def _space(self, file: HubFile) -> Space:
        return Space(place_of(self.place, file), content_of(file).digest, file.size_bytes)

    def _begin(self, record: CheckpointRecord, old: CheckpointRecord | None) -> None:
        """Write down what will come, besides what came before; from now on, nothing here is whole."""
        names = {one.name for one in record.files}
        files = [*record.files, *(one for one in (old.files if old else []) if one.name not in names)]
        unfinished = msgspec.structs.replace(record, files=files)
        write_document(self.place / UNFINISHED_NAME, RECORD_KIND, unfinished)
        with storage_errors("cannot remove", self.place / RECORD_NAME):
            (self.place / RECORD_NAME).unlink(missing_ok=True)
            sync_dir(self.place)

    def _fetch(self, wanted: Sequence[HubFile], hub: Hub) -> int:
        fetched_bytes = 0
        coming = [Coming(file.name, file.size_bytes, self._space(file).present_bytes()) for file in wanted]
        replaced = {file.name for file in wanted if os.path.lexists(place_of(self.place, file))}
        with shared_bar(f"pull {printable(self.repo.repo)}", coming, self.reporter) as shares:
            for file, share in zip(wanted, shares, strict=True):
                target = place_of(self.place, file)
                with held_partial(target, content_of(file).digest) as partial:
                    with full_disk(target, None if self.is_pruned else partial.path):
                        fetched_bytes += hub.fill(file, partial, share)
                        partial.flush()
                    self._publish(file, partial, replace=file.name in replaced)
        return fetched_bytes

    def _publish(self, file: HubFile, partial: Partial, *, replace: bool) -> None:
        """Give a file its name, if nobody put another one there since the beginning."""
        is_there = not partial.publish(replace=replace)
        if is_there and not content_of(file).is_in(partial.target, self.reporter):
            raise self._not_ours(partial.target)

    def _remove_superseded(self, old: CheckpointRecord | None) -> None:
        """Remove what came with an older commit and is no longer in the repository: the converter would use it."""
        there = {file.name for file in self.repo.files}
        for one in old.files if old else []:
            path = join_below(self.place, *checked_repo_path(one.name))
            if one.name not in there and path.is_file() and not path.is_symlink():
                if path.stat().st_size == one.size_bytes:
                    with storage_errors("cannot remove", path):
                        path.unlink()
                    self.reporter.note(f"removed {printable(path.name)}, which {self.repo.repo} no longer has")
                else:
                    self.reporter.warn(f"{path} is no longer in the repository, and was changed here: it is left")

    def _record(self) -> CheckpointRecord:
        files = [CheckpointFile(file.name, file.size_bytes, file.sha256, file.git_sha1) for file in self.files]
        return CheckpointRecord(repo=self.repo.repo, revision=self.repo.commit, downloaded_at=now_at(), files=files)
