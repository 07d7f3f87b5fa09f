"""What a user may type as a VERSION, read without looking at any repository.

`latest`, `b11434`, `v0.6.0`, `pr/123`, a branch, a commit, or the path of a local tree. Which of these exist is for
`mirror.py` and `snapshot.py` to say.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llama_mgr.errors import BadVersionError

LATEST = "latest"
_REF_LIMIT = 200
_BUILD = re.compile(r"b(?P<number>[1-9][0-9]{0,8})")
_RELEASE = re.compile(r"v(?P<major>[0-9]{1,6})\.(?P<minor>[0-9]{1,6})\.(?P<patch>[0-9]{1,6})")
_PULL = re.compile(r"pr/(?P<number>[1-9][0-9]{0,8})")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_PATH_STARTS = ("/", "./", "../", "~/")
# git-check-ref-format(1), rules 1 and 3 to 9
_NOT_IN_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)")

Kind = Literal["latest", "build", "release", "pull", "name", "path"]


@dataclass(frozen=True)
class Version:
    """A VERSION as typed, and what it can mean."""

    kind: Kind
    """`name` is a branch, another tag or a commit."""
    text: str
    number: int = 0
    """The build number of `b11434`, the pull request of `pr/123`; 0 for the others."""

    @property
    def may_be_commit(self) -> bool:
        """Whether the text has the form of a full or abbreviated commit id (7 to 40 hex digits)."""
        return self.kind == "name" and bool(_COMMIT.fullmatch(self.text.lower()))

    @property
    def moves(self) -> bool:
        """Whether it may mean another commit tomorrow: all but `b11434`, `v0.6.0` and commit ids."""
        return not (self.kind in {"build", "release"} or self.may_be_commit)


def parsed_version(text: str) -> Version:
    """Return what the VERSION `text` can mean; nothing is looked up.

    Raises:
        BadVersionError: git could have no ref of this form, and it is no path either.
    """
    if text == LATEST:
        return Version("latest", text)
    if text in {".", "..", "~"} or text.startswith(_PATH_STARTS):
        return Version("path", _checked_path(text))
    checked_ref(text)
    number = build_number_in(text)
    if number:
        return Version("build", text, number)
    if _RELEASE.fullmatch(text):
        return Version("release", text)
    if pull := _PULL.fullmatch(text):
        return Version("pull", text, int(pull["number"]))
    return Version("name", text)


def checked_ref(text: str) -> str:
    """Return `text` if it can be the short name of a branch or tag, or a commit id.

    Raises:
        BadVersionError: it cannot.
    """
    if not text.strip():
        raise BadVersionError("cannot use the version", text, "it is empty")
    if text.startswith("-"):
        raise BadVersionError("cannot use the version", text, "refs do not start with '-'")
    if len(text) > _REF_LIMIT:
        raise BadVersionError("cannot use the version", text, f"it is longer than the limit of {_REF_LIMIT} characters")
    if _NOT_IN_A_REF.search(text) or text == "@" or text[0] in "./" or text[-1] in "./":
        raise BadVersionError(
            "cannot use the version", text, "not a valid git ref",
            hint="use latest, b11434, v0.6.0, pr/123, a branch, a commit, or the path of a local tree",
        )  # fmt: skip
    return text


def build_number_in(tag: str) -> int:
    """Return 11434 for the tag `b11434`, 0 for a tag of another form."""
    found = _BUILD.fullmatch(tag)
    return int(found["number"]) if found else 0


def release_in(tag: str) -> tuple[int, int, int] | None:
    """Return `(0, 6, 0)` for the tag `v0.6.0`, None for a tag of another form (pre-releases among them)."""
    found = _RELEASE.fullmatch(tag)
    return (int(found["major"]), int(found["minor"]), int(found["patch"])) if found else None


def neighbours(number: int, known: list[int]) -> list[int]:
    """Return the known build numbers next below and next above `number`, those of the two that exist."""
    below = max((other for other in known if other < number), default=None)
    above = min((other for other in known if other > number), default=None)
    return [other for other in (below, above) if other is not None]


def nearest_words(numbers: list[int]) -> str | None:
    """Return `nearest are b11401 and b11434`, or None for no numbers."""
    if not numbers:
        return None
    names = " and ".join(f"b{number}" for number in numbers)
    return f"nearest are {names}" if len(numbers) > 1 else f"nearest is {names}"


def label(text: str) -> str:
    """Return `text` as it can stand in the name of a build: `gg/Fix_1` becomes `gg-fix_1`."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return plain[:40].rstrip("-._") or "unnamed"


def _checked_path(text: str) -> str:
    if any(ord(character) < ord(" ") for character in text):
        raise BadVersionError("cannot use the path", text, "it holds control characters")
    return text


def absolute_path(text: str, user_home: str) -> Path:
    """Return the typed path as an absolute one; `~/` is below `user_home`. Links are resolved where they exist."""
    if text == "~" or text.startswith("~/"):
        return Path(user_home, text[2:]).resolve()
    return Path(text).resolve()
