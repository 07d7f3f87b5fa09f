"""Reading the log of a configure or a build that failed: what matters in it, and what is known about it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llama_mgr.build.recipe_file import Failure
from llama_mgr.text import printable

LOG_LIMIT_CHARACTERS = 256 * 1024
_LINE_LIMIT_CHARACTERS = 2000
_GROUP_LIMIT_CHARACTERS = 120
_TAIL_LINES = 12

_PLAIN_QUOTES = str.maketrans({"\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'"})
_GROUP = re.compile(r"\{(\d)\}")
_STEP = re.compile(r"\[\d+/\d+\] ")
_TROUBLE = re.compile(
    r"\b(?:error|undefined reference|undefined symbols?|not found|cannot find|No such file|Killed)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Diagnosis:
    """Why a child failed, and what mends it, each one sentence."""

    cause: str
    fix: str


def diagnose(log_text: str, failures: Sequence[Failure]) -> Diagnosis | None:
    """Return what the first of `failures` whose pattern occurs in the end of `log_text` says, or None.

    Only the last 256 KiB are searched, with lines cut at 2,000 characters. `^` and `$` match at lines. The curly quotes
    that gcc and clang use in a UTF-8 locale are searched as `'`. `{1}` … `{9}` in the words become what the groups
    matched.
    """
    lines = log_text[-LOG_LIMIT_CHARACTERS:].translate(_PLAIN_QUOTES).splitlines()
    searched = "\n".join(line[:_LINE_LIMIT_CHARACTERS] for line in lines)
    found = _first_match(searched, [failure.match for failure in failures])
    if found is None:
        return None
    number, groups = found
    return Diagnosis(_filled(failures[number].cause, groups), _filled(failures[number].fix, groups))


def _first_match(text: str, patterns: list[str]) -> tuple[int, list[str]] | None:
    for number, pattern in enumerate(patterns):
        found = re.search(pattern, text, re.MULTILINE)
        if found:
            return number, [found[0], *found.groups("")]
    return None


def _filled(words: str, groups: Sequence[str]) -> str:
    def group(reference: "re.Match[str]") -> str:
        number = int(reference[1])
        return printable(groups[number], _GROUP_LIMIT_CHARACTERS) if number < len(groups) else reference[0]

    return _GROUP.sub(group, words)


def relevant_lines(output: str) -> list[str]:
    """Return the at most 12 lines of a failed configure or build that tell why, each made printable.

    For CMake they begin at its first `CMake Error`. For ninja they are what the first failed step said, without its
    command line; other steps that were still running end after it, so the last lines of the log rarely matter.
    """
    lines = output[-LOG_LIMIT_CHARACTERS:].splitlines()
    for block in (_cmake_error(lines), _failed_step(lines), lines[-_TAIL_LINES:]):
        if block:
            return [printable(line.rstrip()) for line in block if line.strip()][:_TAIL_LINES]
    return []


def _cmake_error(lines: Sequence[str]) -> Sequence[str]:
    for number, line in enumerate(lines):
        if line.startswith("CMake Error"):
            return lines[number : number + 2 * _TAIL_LINES]
    return []


def _failed_step(lines: Sequence[str]) -> Sequence[str]:
    for number, line in enumerate(lines):
        if line.startswith("FAILED: "):
            said = _until_next_step(lines[number + 2 :])
            return [line, *_from_first_trouble(said)]
    return []


def _until_next_step(lines: Sequence[str]) -> Sequence[str]:
    for number, line in enumerate(lines):
        if _STEP.match(line) or line.startswith(("FAILED: ", "ninja: ")):
            return lines[:number]
    return lines


def _from_first_trouble(said: Sequence[str]) -> Sequence[str]:
    for number, line in enumerate(said):
        if _TROUBLE.search(line):
            return said[max(0, min(number - 1, len(said) - _TAIL_LINES + 1)) :]
    return said
