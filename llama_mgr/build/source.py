"""Where llama.cpp's code comes from: a git repository, a snapshot on the package index, or a tree of the user's own."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llama_mgr.build.commit_tree import CommitTree
from llama_mgr.build.git_program import GitProgram
from llama_mgr.build.local_tree import LocalTree
from llama_mgr.build.lookup import Lookup
from llama_mgr.build.mirror import Mirror
from llama_mgr.build.repository import UPSTREAM_URL, Repository, repository
from llama_mgr.build.setting_errors import require_usable
from llama_mgr.build.snapshot import Snapshots
from llama_mgr.build.tree import DirectoryTree, Tree
from llama_mgr.build.version import LATEST, Version, absolute_path, checked_ref, label, parsed_version
from llama_mgr.errors import BadInputError, RemoteError
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.settings import Origins, Settings

_LATEST = Version("latest", LATEST)


@dataclass(frozen=True)
class Wanted:
    """What a user asked for."""

    version: str = LATEST
    """`latest`, `b11434`, `v0.6.0`, `pr/123`, a branch, a commit, or the path of a local tree."""
    repo_url: str | None = None
    branch: str | None = None
    kind: Literal["auto", "git", "snapshot"] = "auto"
    """`auto`: git, and the package index when upstream's repository cannot be reached."""
    allow_http: bool = False


@dataclass(frozen=True)
class Source:
    """One exact state of llama.cpp's code, ready to be read and checked out without a network."""

    kind: Literal["git", "snapshot", "path"]
    location: str
    """The repository's URL, the file of the snapshot, or the directory."""
    version: str
    """For people, and part of a build's name: `b11434`, `gg-fix`, `pr-123`, nine digits of a commit, `local-<dir>`."""
    commit: str
    """40 hex digits, `snapshot:<sha256>` or `tree:<sha256>`."""
    build_number: int
    """Upstream's number of the commit; 0 where nobody knows it."""
    tree: Tree = field(compare=False, repr=False)

    @property
    def short_commit(self) -> str:
        """What a build says of its commit: nine hex digits, or upstream's word `unknown` where git knows nothing."""
        return short_commit(self.commit)

    @property
    def is_release(self) -> bool:
        """Whether upstream calls it a release (`v0.6.0`) rather than a numbered build."""
        return re.fullmatch(r"v\d+\.\d+\.\d+", self.version) is not None


def short_commit(commit: str) -> str:
    """Return the first nine hex digits of a git commit; `unknown` for the identities of archives and changed trees."""
    return "unknown" if ":" in commit else commit[:9]


class Sources:
    """Finds sources, and lays them out as work trees."""

    def __init__(self, home: Home, environ: Mapping[str, str], reporter: Reporter, settings: Settings) -> None:
        """Look for sources as `settings.source` says; nothing is contacted yet."""
        self._home = home
        self._environ = environ
        self._reporter = reporter
        self._settings = settings
        self._git = GitProgram(environ, settings.build.tool_paths)
        self._snapshots = Snapshots(home, environ, reporter, settings.source.package_index or None)

    def locate(self, wanted: Wanted) -> Source:
        """Return the source that `wanted` means; what it needs is on disk afterwards.

        The network is used only when the answer is not here: for `latest`, branches and pull requests always, for an
        exact tag or commit only the first time.

        Raises:
            BadVersionError, BadUrlError, BadInputError: it is malformed.
            RefusedError: the URL's protocol is not allowed.
            BadConfigError: the package index of the settings cannot be used.
            UnknownVersionError: there is no such version; the nearest are named.
            NotFoundError: there is no such repository or directory.
            RemoteError, RemoteDeniedError: the remote cannot be reached, or wants a login.
            MissingToolsError: there is no git, or `build.tools.git` names no program.
            IncompleteSourceError, StorageError: the local tree is no source tree, or the disk failed.
        """
        version = checked_version(wanted)
        if version.kind == "path":
            return self._local(version)
        if wanted.kind == "snapshot":
            return self._snapshot(version)
        chosen = self._repository(wanted)
        if self._only_as_snapshot(wanted, version, chosen):
            return self._snapshot(version)
        try:
            return self._from_git(version, wanted.branch, chosen)
        except RemoteError as error:
            if self._may_fall_back(wanted, version):
                return self._instead_of_git(version, error)
            if self._may_fall_back(wanted, _LATEST):
                error.hint = "the package index has numbered builds: use a version such as b11434, or latest"
            raise

    def has_branch(self, wanted: Wanted, name: str) -> bool | None:
        """Tell, without a network, whether the repository of `wanted` had a branch `name` when it was last fetched.

        Returns:
            None when it was never fetched.

        Raises:
            BadUrlError, RefusedError: the URL is malformed, or its protocol is not allowed.
            MissingToolsError: there is no git.
        """
        mirror = self._mirror(self._repository(wanted))
        return mirror.commit_of(f"refs/heads/{name}") is not None if mirror.exists() else None

    def check_out(self, source: Source, target: Path) -> None:
        """Lay the files of `source` out at `target`, which must not exist.

        On disk afterwards: the whole tree; that of a git source has a `.git` file that leads into the mirror. After an
        error `target` may be there in part. End with `release`.

        Raises:
            IntegrityError, RefusedError: a snapshot is damaged or unsafe, or a local tree changed since `locate`.
            ChildFailedError, StorageError: git or the disk failed.
        """
        self._reporter.step(f"check out {source.version}")
        if source.kind == "git":
            self._mirror(repository(source.location, allow_http=True)).add_work_tree(source.commit, target)
        elif source.kind == "snapshot":
            self._snapshots.unpack(join_below(self._home.snapshots_dir, source.location), target)
        else:
            LocalTree(Path(source.location), self._git).copy(target, source.commit)

    def release(self, target: Path) -> None:
        """Remove the tree that `check_out` made at `target` inside the home, and git's notes about it.

        A target that is already gone is fine.
        """
        mirror = self._mirror_behind(target)
        if mirror:
            mirror.remove_work_tree(target)
        if target.resolve().is_relative_to(self._home.root.resolve() / self._home.staging_dir.name):
            shutil.rmtree(target, ignore_errors=True)

    # -- git -----------------------------------------------------------------------------------------------------------

    def _from_git(self, version: Version, branch: str | None, chosen: Repository) -> Source:
        mirror = self._mirror(chosen)
        found = Lookup(mirror, self._reporter).find(version, branch)
        mirror.complete(found.commit)
        number = mirror.build_number(found.commit)
        return Source("git", chosen.url, found.label, found.commit, number, CommitTree(mirror, found.commit))

    def _repository(self, wanted: Wanted) -> Repository:
        url = wanted.repo_url
        if not url:
            self._require_usable("source.repo-url")
            url = self._settings.source.repo_url or UPSTREAM_URL
        return repository(url, allow_http=wanted.allow_http)

    def _require_usable(self, key: str) -> None:
        require_usable(self._settings, Origins(self._home, self._environ), key)

    def _mirror(self, chosen: Repository) -> Mirror:
        return Mirror(self._home, chosen, self._git, self._reporter)

    def _mirror_behind(self, target: Path) -> Mirror | None:
        noted = target / ".git"
        if not noted.is_file() or noted.is_symlink():
            return None
        # A work tree says `gitdir: <mirror>/worktrees/<name>`.
        directory = Path(noted.read_text("utf-8", "replace").removeprefix("gitdir:").strip()).parent.parent
        if directory.parent.resolve() != self._home.source_dir.resolve():
            return None
        words = [f"--git-dir={directory}", "config", "--get", "remote.origin.url"]
        url = self._git.run(words, cwd=directory, check=False).text
        return self._mirror(repository(url, allow_http=True)) if url else None

    # -- package index and local trees ---------------------------------------------------------------------------------

    def _may_fall_back(self, wanted: Wanted, version: Version) -> bool:
        chosen_by_user = wanted.repo_url or wanted.branch or self._settings.source.repo_url
        return wanted.kind == "auto" and not chosen_by_user and version.kind in {"latest", "build"}

    def _only_as_snapshot(self, wanted: Wanted, version: Version, chosen: Repository) -> bool:
        # A build that came as a snapshot stays one: asking for it again needs neither network nor compiler.
        if not self._may_fall_back(wanted, version) or not self._snapshots.downloaded(version.number):
            return False
        return self._mirror(chosen).commit_of(f"refs/tags/{version.text}") is None

    def _instead_of_git(self, version: Version, unreachable: RemoteError) -> Source:
        self._reporter.note(f"{unreachable.message}; taking a snapshot from the package index instead")
        try:
            return self._snapshot(version)
        except RemoteError as error:
            raise RemoteError(
                "cannot find a source for", version.text, f"{unreachable.message}; and {error.message}",
                hint="check the network, or give the path of a local llama.cpp tree as the version",
            ) from error  # fmt: skip

    def _snapshot(self, version: Version) -> Source:
        if version.kind not in {"latest", "build"}:
            raise BadInputError(
                "cannot take a snapshot of", version.text, "the package index knows numbered builds only",
                hint="use a version such as b11434, or latest",
            )  # fmt: skip
        if not self._snapshots.downloaded(version.number):
            self._require_usable("source.package-index")
        number = version.number or self._snapshots.newest()
        archive = self._snapshots.fetch(number)
        record = self._snapshots.record(archive)
        return Source(
            "snapshot", archive.name, f"b{number}", f"snapshot:{record.sha256}", number, self._snapshots.tree(archive)
        )

    def _local(self, version: Version) -> Source:
        tree = LocalTree(absolute_path(version.text, self._environ.get("HOME", "/")), self._git)
        identity = tree.identity()
        name = label(f"local-{tree.root.name}")
        return Source("path", str(tree.root), name, identity.commit, identity.build_number, DirectoryTree(tree.root))


def checked_version(wanted: Wanted) -> Version:
    """Return what the VERSION of `wanted` can mean, if its other words go with it; nothing is looked up.

    Raises:
        BadVersionError: the version or branch is malformed.
        BadInputError: a branch or a repository is asked for beside what has none.
    """
    version = parsed_version(wanted.version)
    if wanted.branch is not None:
        checked_ref(wanted.branch)
        if version.kind != "latest":
            raise BadInputError("cannot use the branch", wanted.branch, "give a version or a branch, not both")
    if wanted.kind == "snapshot" and (wanted.branch or wanted.repo_url):
        raise BadInputError(
            "cannot take a snapshot of", wanted.branch or "a repository", "snapshots are of upstream's builds only"
        )
    if wanted.repo_url and version.kind == "path":
        raise BadInputError("cannot use the path", wanted.version, "give a repository or a local tree, not both")
    return version
