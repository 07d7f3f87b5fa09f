"""Bare mirrors: one for each repository, without file contents, shared by all instances.

A mirror has every commit, so that build numbers (`git rev-list --count`) are exact; the files of a commit are fetched
once, when that commit is chosen. Writers hold the lock `source-<name>`.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_mgr import locks, staging, store
from llama_mgr.build.git_program import GitProgram, Word
from llama_mgr.build.repository import Repository, without_credentials
from llama_mgr.build.version import build_number_in
from llama_mgr.errors import CorruptStateError, LlamaMgrError, NotFoundError
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter

_BRANCHES_AND_TAGS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_HEX_DIGITS = 40
_LOCKS = ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock")
_LOCK_PATIENCE_S = 2.0  # git holds them for milliseconds
_HALF_WRITTEN = ("objects/pack/tmp_*", "objects/*/tmp_obj_*")
_HALF_WRITTEN_PATIENCE_S = 3600.0
_PACKS_LIMIT = 50  # every fetch adds one; git's own limit for a collection is the same
_TIDY_LIMIT_S = 1800.0
_RELEASE_PATIENCE_S = 5.0  # what is not removed now, the next check-out prunes


@dataclass(frozen=True)
class Tag:
    """A tag and the commit it points at, an annotated one peeled."""

    name: str
    commit: str


class Mirror:
    """The bare mirror of one repository, below `source/` of the home."""

    def __init__(self, home: Home, repository: Repository, git: GitProgram, reporter: Reporter) -> None:
        """Name the mirror; nothing is fetched or made yet."""
        self._home = home
        self._repository = repository
        self._git = git
        self._reporter = reporter
        self.directory = join_below(home.source_dir, f"{repository.name}.git")
        self._lock_name = f"source-{repository.name}"
        self.is_fresh = False
        """Whether this object has seen all branches and tags that the remote has."""

    @property
    def remote(self) -> str:
        """The repository, as messages name it."""
        return without_credentials(self._repository.url)

    def exists(self) -> bool:
        """Tell whether there is a whole mirror on disk."""
        return (self.directory / "HEAD").is_file() and (self.directory / "objects").is_dir()

    # -- what needs the network ----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Clone the repository, or fetch its branches and tags into the mirror; gone ones vanish here too.

        On disk afterwards: a whole mirror, or, after an error or a kill, the one from before.

        Raises:
            RemoteError, RemoteDeniedError, NotFoundError, RefusedError, MissingToolsError, NoSpaceError: as
                `GitProgram.talk`.
        """
        with self._held("fetch"):
            if self.exists():
                self._fetch(f"fetch {self.remote}", "--prune", refspecs=_BRANCHES_AND_TAGS)
                self._tidy()
            else:
                self._clone()
        self.is_fresh = True

    def fetch_ref(self, ref: str) -> bool:
        """Fetch the one full ref (`refs/pull/123/head`) or 40-digit commit `ref`; return False when there is none.

        Raises:
            RemoteError, RemoteDeniedError, RefusedError, MissingToolsError, NoSpaceError: see `GitProgram.talk`.
        """
        is_commit = len(ref) == _HEX_DIGITS
        try:
            with self._held("fetch"):
                self._fetch(f"fetch {ref} of {self.remote}", refspecs=(ref if is_commit else f"+{ref}:{ref}",))
        except LlamaMgrError as error:
            if any(
                words in line
                for line in error.tail
                for words in ("find remote ref", "not our ref", "no such remote ref")
            ):
                return False
            raise
        return True

    def complete(self, commit: str) -> None:
        """Fetch the files of `commit` that the mirror lacks, in one go; from then on it needs no network.

        Raises:
            RemoteError, RemoteDeniedError, RefusedError, MissingToolsError, NoSpaceError: see `GitProgram.talk`.
        """
        if not self._missing(commit):
            return
        with self._held("fetch"):
            missing = self._missing(commit)
            if missing:
                wanted = "".join(f"{name}\n" for name in missing).encode()
                words = ("-c", "fetch.negotiationAlgorithm=noop", "fetch", "--no-tags", "--no-write-fetch-head")
                self._talk(
                    f"fetch the files of {commit[:9]}",
                    [*words, "--recurse-submodules=no", "--filter=blob:none", "--progress", "--stdin", "origin"],
                    stdin=wanted,
                )

    def _clone(self) -> None:
        if self.directory.exists():
            staging.discard(self._home, self.directory, of=self._lock_name)
        with staging.staging(self._home, "mirror") as staged:
            made = staged / self.directory.name
            words: list[Word] = [
                "clone",
                "--bare",
                "--filter=blob:none",
                "--progress",
                "--",
                self._repository.url,
                made,
            ]
            self._talk(f"clone {self.remote}", words, cwd=staged)
            staging.mark(made, of=self._lock_name)
            store.publish(made, self.directory)

    def _tidy(self) -> None:
        if len(list(self.directory.glob("objects/pack/*.pack"))) > _PACKS_LIMIT:
            self._reporter.step(f"tidy up the mirror of {self.remote}")
            words = [f"--git-dir={self.directory}", "gc", "--quiet"]
            self._git.run(words, cwd=self.directory, check=False, timeout_s=_TIDY_LIMIT_S)

    def _fetch(self, title: str, *options: str, refspecs: tuple[str, ...]) -> None:
        words = ["fetch", "--no-tags", "--filter=blob:none", "--progress", *options, "--", "origin", *refspecs]
        self._talk(title, words)

    def _talk(self, title: str, words: list[Word] | list[str], *, cwd: Path | None = None, stdin: bytes = b"") -> None:
        where: list[Word] = [] if cwd else [f"--git-dir={self.directory}"]
        with self._reporter.progress(title, None, "objects") as progress:
            self._git.talk(
                [*where, *words], cwd=cwd or self.directory, remote=self.remote, progress=progress, stdin=stdin,
                http=self._repository.protocol == "http",
            )  # fmt: skip

    @contextlib.contextmanager
    def _held(self, purpose: str, timeout_s: float | None = None) -> Iterator[None]:
        with locks.held_lock(self._home, self._lock_name, f"{purpose} {self.remote}", self._reporter, timeout_s):
            self._clear_leftovers()
            yield

    def _clear_leftovers(self) -> None:
        # Only the holder of our lock writes here, so these were left by a killed git, or belong to one that outlived
        # its killed llama-mgr. The latter ends in a moment, its output having nowhere to go; until then it is spared.
        for leftover in self._matching(*_LOCKS):
            with contextlib.suppress(OSError):
                time.sleep(max(0.0, min(leftover.stat().st_mtime + _LOCK_PATIENCE_S - time.time(), _LOCK_PATIENCE_S)))
                leftover.unlink()
        for leftover in self._matching(*_HALF_WRITTEN):
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _HALF_WRITTEN_PATIENCE_S:
                    leftover.unlink()

    def _matching(self, *patterns: str) -> list[Path]:
        return [path for pattern in patterns for path in self.directory.glob(pattern)]

    # -- what is known without it --------------------------------------------------------------------------------------

    def tags(self) -> list[Tag]:
        """Return all tags that point at commits."""
        words = (
            "for-each-ref",
            "--format=%(refname:lstrip=2) %(objecttype) %(objectname) %(*objecttype) %(*objectname)",
        )
        found = []
        for line in self._answer(*words, "refs/tags/").splitlines():
            name, kind, object_name, *peeled = line.split(" ")
            if kind == "commit":
                found.append(Tag(name, object_name))
            elif peeled[:1] == ["commit"]:
                found.append(Tag(name, peeled[1]))
        return found

    def branches(self) -> list[str]:
        """Return the names of all branches."""
        return self._answer("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/").splitlines()

    def default_branch(self) -> str | None:
        """Return the branch that the repository's HEAD names, or None when that branch is gone."""
        name = self._answer("symbolic-ref", "--short", "HEAD")
        return name if self.commit_of(f"refs/heads/{name}") else None

    def commit_of(self, ref: str) -> str | None:
        """Return the commit that a full ref (`refs/tags/b11434`) or a commit id leads to, None when there is none.

        Never hand a bare tag name to this: `b4740` is also the form of an abbreviated object id.
        """
        if not self.exists():
            return None
        words = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"]
        found = self._git.run([f"--git-dir={self.directory}", *words], cwd=self.directory, check=False)
        return found.text if found.status == 0 and len(found.text) == _HEX_DIGITS else None

    def build_number(self, commit: str) -> int:
        """Return the build number of `commit`: that of a tag `bNNNN` on it, else its count of commits.

        In upstream's repository both agree. In one with a shortened history only the tag is right, so the tag wins.
        """
        named = [build_number_in(name) for name in self._answer("tag", "--points-at", commit).splitlines()]
        return max(named, default=0) or int(self._answer("rev-list", "--count", commit, "--"))

    def commit_of_build(self, number: int) -> str | None:
        """Return the commit on the default branch that is build `number`, for the many numbers without a tag."""
        branch = self.default_branch()
        commits = (
            self._answer("rev-list", "--first-parent", "--reverse", f"refs/heads/{branch}", "--").splitlines()
            if branch
            else []
        )
        # A merge adds its side's commits to the count, so the one we look for is at its number or a little before.
        for commit in reversed(commits[:number]):
            count = self._count(commit)
            if count <= number:
                return commit if count == number else None
        return None

    def _count(self, commit: str) -> int:
        return int(self._answer("rev-list", "--count", commit, "--"))

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Tell whether commit `older` is part of the history of `newer`."""
        words = [f"--git-dir={self.directory}", "merge-base", "--is-ancestor", older, newer]
        return self._git.run(words, cwd=self.directory, check=False).status == 0

    def committed_at(self, commit: str) -> int:
        """Return when `commit` was committed, in seconds since 1970."""
        return int(self._answer("log", "-1", "--format=%ct", commit, "--"))

    def _missing(self, commit: str) -> list[str]:
        said = self._answer("rev-list", "--objects", "--no-walk", "--missing=print", commit, "--")
        return [line[1:] for line in said.splitlines() if line.startswith("?")]

    # -- work trees ----------------------------------------------------------------------------------------------------

    def add_work_tree(self, commit: str, target: Path) -> None:
        """Check `commit` out at `target`, which must not exist; git's notes about it lie in the mirror.

        Raises:
            ChildFailedError: git could not.
        """
        with self._held("check out a commit of"):
            self._answer("worktree", "prune", "--expire=now")
            self._answer("worktree", "add", "--force", "--detach", "--", str(target), commit)

    def remove_work_tree(self, target: Path) -> None:
        """Remove what `add_work_tree` made at `target`, and git's notes about it.

        Raises:
            BusyError: somebody fetches into the mirror for longer than 5 s; the next `add_work_tree` removes the notes.
            ChildFailedError: git could not.
        """
        with self._held("release a commit of", _RELEASE_PATIENCE_S):
            words: list[Word] = [
                f"--git-dir={self.directory}",
                "worktree",
                "remove",
                "--force",
                "--force",
                "--",
                target,
            ]
            self._git.run(words, cwd=self.directory, check=False)
            self._answer("worktree", "prune", "--expire=now")

    def _answer(self, *words: str) -> str:
        if not self.exists():
            raise NotFoundError("cannot read the mirror of", self.remote, "it was not fetched yet")
        try:
            return self._git.run([f"--git-dir={self.directory}", *words], cwd=self.directory).text
        except LlamaMgrError as error:
            if any("bad object" in line or "not a git repository" in line for line in error.tail):
                raise CorruptStateError(
                    "cannot read the mirror", self.directory, error.message, hint=f"delete {self.directory}"
                ) from error
            raise

    def read(self, *words: str, stdin: bytes = b"") -> bytes:
        """Return the raw output of the read-only git command `words`.

        Raises:
            ChildFailedError: git failed.
        """
        return self._git.run([f"--git-dir={self.directory}", *words], cwd=self.directory, stdin=stdin).stdout
