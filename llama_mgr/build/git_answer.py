"""What git said, and which of our errors that is."""

import re
from dataclasses import dataclass

from llama_mgr import process
from llama_mgr.errors import (
    ChildFailedError,
    LlamaMgrError,
    NoSpaceError,
    NotFoundError,
    RefusedError,
    RemoteDeniedError,
    RemoteError,
)
from llama_mgr.text import printable_lines

_TAIL_LINES = 6
_REPEATED_URL = re.compile(r"^unable to access '[^']*': ")
PROGRESS = re.compile(
    r"(?:remote: )?(?P<phase>[A-Z][A-Za-z ]+):\s+(?:\d+% \((?P<done>\d+)/(?P<total>\d+)\)|(?P<count>\d+))"
    r"(?:, (?P<speed>[^,]*/s))?"
)
"""A line of git's `--progress` output."""


@dataclass(frozen=True)
class GitAnswer:
    """What a finished git command said."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Its output as text, without surrounding white space."""
        return self.stdout.decode("utf-8", "replace").strip()


def failure(doing: str, subject: object, answer: GitAnswer) -> LlamaMgrError:
    """Return the error that fits what git said when it failed at `doing` something with `subject`."""
    said = answer.stderr
    last = printable_lines("\n".join(line for line in said.splitlines() if not PROGRESS.match(line)), _TAIL_LINES)
    for pattern, kind, why, hint in _FAILURES:
        if pattern.search(said):
            return kind(f"cannot {doing}", subject, why or _first_complaint(last), hint=hint, tail=last)
    words = _first_complaint(last) or process.status_words(answer.status)
    return ChildFailedError(f"cannot {doing}", subject, words, tail=last)


_FAILURES: tuple[tuple[re.Pattern[str], type[LlamaMgrError], str, str | None], ...] = (
    (re.compile(r"No space left on device|Disk quota exceeded"), NoSpaceError, "the disk is full", None),
    (
        re.compile(r"transport '.*' not allowed"), RefusedError, "",
        "look at url.<base>.insteadOf in your git configuration",
    ),
    (
        re.compile(r"dubious ownership"), RefusedError, "the repository belongs to another user",
        "git config --global --add safe.directory DIRECTORY",
    ),
    (
        re.compile(
            r"Authentication failed|could not read (Username|Password)|terminal prompts disabled|Permission denied \("
            r"|Host key verification failed|returned error: 40[13]\b|invalid credentials", re.IGNORECASE,
        ),
        RemoteDeniedError, "it does not exist, or wants a login that git does not have",
        "check the URL; for a private repository set up a git credential helper or an ssh key",
    ),
    (
        re.compile(
            r"^fatal: repository .* not found|does not appear to be a git repository|returned error: 404"
            r"|Repository not found|^fatal: .* does not exist", re.MULTILINE,
        ),
        NotFoundError, "there is no git repository", "check the URL",
    ),
    (
        re.compile(
            r"Could not resolve|unable to access|Connection (refused|reset|timed out)|Failed to connect|timed? ?out"
            r"|Could not read from remote repository|early EOF|RPC failed|unexpected disconnect|hung up|too slow"
            r"|unable to look up|Network is unreachable|No route to host|could not fetch|promisor remote",
            re.IGNORECASE,
        ),
        RemoteError, "", "try again when the network is back",
    ),
)  # fmt: skip


def _first_complaint(lines: list[str]) -> str:
    complaints = [line for line in lines if line.startswith(("fatal:", "error:"))]
    first = complaints[0].partition(": ")[2] if complaints else (lines[-1] if lines else "")
    return _REPEATED_URL.sub("", first)
