"""From what a user typed to a commit of a mirror, with as little network as the question allows."""

from dataclasses import dataclass

from llama_mgr.build.mirror import Mirror, Tag
from llama_mgr.build.version import Version, build_number_in, label, nearest_words, neighbours, release_in
from llama_mgr.errors import UnknownVersionError
from llama_mgr.report import Reporter
from llama_mgr.text import did_you_mean

_SHOWN_DIGITS = 9
_FULL_DIGITS = 40


@dataclass(frozen=True)
class Found:
    """The commit that a version means."""

    commit: str
    label: str
    """What builds of it are called: `b11434`, `v0.6.0`, `gg-fix`, `pr-123`, `973f328b1`."""


class Lookup:
    """Finds versions in one mirror."""

    def __init__(self, mirror: Mirror, reporter: Reporter) -> None:
        """Search in `mirror`, telling `reporter` where a version needed interpretation."""
        self._mirror = mirror
        self._reporter = reporter

    def find(self, version: Version, branch: str | None = None) -> Found:
        """Return what `version` (or the head of `branch`) means, fetching only when the mirror cannot know.

        Raises:
            UnknownVersionError: the repository has no such thing; the nearest are named.
            RemoteError, RemoteDeniedError, NotFoundError, MissingToolsError: see `Mirror.refresh`.
        """
        if branch or version.kind == "latest" or not self._mirror.exists():
            self._mirror.refresh()
        if branch:
            return self._head_of(branch) or self._unknown(branch, did_you_mean(branch, self._mirror.branches()))
        if version.kind == "latest":
            return self.latest()
        if version.kind == "pull":
            return self._pull_request(version)
        found = self._fixed(version) or self._without_tag(version)
        if found is None and not self._mirror.is_fresh:
            self._mirror.refresh()
            found = self._fixed(version) or self._without_tag(version)
        return found or self._moving(version) or self._unknown(version.text, self._nearest(version))

    def latest(self) -> Found:
        """Return the newest of the tags `bNNNN` and `vX.Y.Z`, by what they point at; without any, the default branch.

        Raises:
            UnknownVersionError: the repository is empty.
        """
        tags = self._mirror.tags()
        builds = [tag for tag in tags if build_number_in(tag.name)]
        releases = [tag for tag in tags if release_in(tag.name)]
        build = max(builds, key=lambda tag: build_number_in(tag.name), default=None)
        release = max(releases, key=lambda tag: release_in(tag.name) or (0, 0, 0), default=None)
        newest = self._newer(build, release)
        if newest:
            return Found(newest.commit, newest.name)
        branch = self._mirror.default_branch()
        found = self._head_of(branch) if branch else None
        if found is None:
            return self._unknown("latest", "the repository has neither tags nor a default branch")
        self._reporter.note(f"{self._mirror.remote} has no tags bNNNN or vX.Y.Z; latest is the head of {found.label}")
        return found

    def _newer(self, build: Tag | None, release: Tag | None) -> Tag | None:
        if build is None or release is None:
            return build or release
        if self._mirror.is_ancestor(release.commit, build.commit):
            return build
        if self._mirror.is_ancestor(build.commit, release.commit):
            return release
        # A release branch leaves the main line, so neither contains the other.
        return max((build, release), key=lambda tag: self._mirror.committed_at(tag.commit))

    def _fixed(self, version: Version) -> Found | None:
        # Tags first, by their full name: `git rev-parse b4740` finds any object whose abbreviated id that is.
        commit = self._mirror.commit_of(f"refs/tags/{version.text}")
        if commit:
            return Found(commit, label(version.text))
        if version.may_be_commit and not self._mirror.commit_of(f"refs/heads/{version.text}"):
            commit = self._mirror.commit_of(version.text.lower())
            return Found(commit, commit[:_SHOWN_DIGITS]) if commit else None
        return None

    def _moving(self, version: Version) -> Found | None:
        found = self._head_of(version.text)
        if found or not version.may_be_commit or len(version.text) != _FULL_DIGITS:
            return found
        # A commit on no branch: a host may hand it out when it is asked for by its whole id.
        commit = version.text.lower()
        if self._mirror.fetch_ref(commit) and self._mirror.commit_of(commit):
            return Found(commit, commit[:_SHOWN_DIGITS])
        return None

    def _without_tag(self, version: Version) -> Found | None:
        if version.kind != "build" or not self._mirror.exists():
            return None
        commit = self._mirror.commit_of_build(version.number)
        if commit:
            self._reporter.note(f"{version.text} has no tag; it is commit {commit[:_SHOWN_DIGITS]}")
        return Found(commit, version.text) if commit else None

    def _head_of(self, branch: str) -> Found | None:
        commit = self._mirror.commit_of(f"refs/heads/{branch}")
        return Found(commit, label(branch)) if commit else None

    def _pull_request(self, version: Version) -> Found:
        ref = f"refs/pull/{version.number}/head"
        commit = self._mirror.commit_of(ref) if self._mirror.fetch_ref(ref) else None
        return Found(commit, f"pr-{version.number}") if commit else self._unknown(version.text, None)

    def _nearest(self, version: Version) -> str | None:
        tags = [tag.name for tag in self._mirror.tags()]
        if version.kind == "build":
            return nearest_words(
                neighbours(version.number, [number for tag in tags if (number := build_number_in(tag))])
            )
        return did_you_mean(version.text, [*self._mirror.branches(), *tags])

    def _unknown(self, text: str, hint: str | None) -> Found:
        raise UnknownVersionError("cannot find the version", text, f"{self._mirror.remote} does not have it", hint=hint)
