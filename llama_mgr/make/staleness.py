"""Whether a file was made by code that has changed since."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from llama_mgr.build.blob_names import blob_names
from llama_mgr.build.record import BuildRecord
from llama_mgr.make.converter_code import Change, ConverterCode, changes
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.text import printable

State = Literal["fresh", "maybe", "stale", "unknown"]

_QUANTIZER_FILES: tuple[tuple[str, ...], ...] = (
    ("src/llama-quant.cpp", "src/llama.cpp", "llama.cpp"),
    ("src/llama-quant.h",),
    ("ggml/src/ggml-quants.c", "ggml-quants.c"),
    ("ggml/src/ggml-quants.h", "ggml-quants.h"),
    ("tools/quantize/quantize.cpp", "examples/quantize/quantize.cpp"),
)
"""What decides the content of a quant. Of each row the newest place counts that a version has: when a part of
`src/llama.cpp` became `src/llama-quant.cpp`, the rest of it had no more to do with quants."""
_REASONS_LIMIT = 5
_WORDS = {"changed": "changed", "added": "is new", "removed": "is gone"}


@dataclass(frozen=True)
class _Code:
    converter_commit: str = ""
    """Empty: no such step. Equal ones are the same code."""
    converter_code: ConverterCode | None = None
    quantizer_commit: str = ""
    quantizer_code: Mapping[str, str] = field(default_factory=dict)
    """Path to git blob; empty where nobody knows."""
    build_version: str = ""
    """For people: `b11401`."""


class MadeWith(_Code):
    """What a file's record says about the code that made it."""


class NowWith(_Code):
    """The code that would make the file now."""


@dataclass(frozen=True)
class Staleness:
    """Whether making the file again could give another one."""

    state: State
    """`fresh`: the same code. `maybe`: only code that all architectures share has changed. `stale`: that of its own
    architecture, or of the quantizer. `unknown`: nobody can tell."""
    reasons: tuple[str, ...] = ()
    """Sentences for people, without full stops; at most five and a last one that counts the others."""


def verdict(made: MadeWith, now: NowWith) -> Staleness:
    """Compare the code that made a file with that of a build; equal commits are the same code."""
    parts = [part for part in (_of_converter(made, now), _of_quantizer(made, now)) if part]
    if not parts:
        return Staleness("unknown", ("nothing is recorded about the code that made it",))
    state = max((part.state for part in parts), key=("fresh", "unknown", "maybe", "stale").index)
    return Staleness(state, _shortened([reason for part in parts for reason in part.reasons]))


def quantizer_code(home: Home, build: BuildRecord, environ: Mapping[str, str], reporter: Reporter) -> dict[str, str]:
    """Return path and git blob of the files that decide what a build's llama-quantize writes; no network is used.

    Returns:
        Nothing when the build's source was no git repository, or its mirror or commit is no longer here.
    """
    every = [path for places in _QUANTIZER_FILES for path in places]
    found = blob_names(home, build.plan, every, environ, reporter)
    chosen = (next((path for path in places if path in found), None) for places in _QUANTIZER_FILES)
    return {path: found[path] for path in chosen if path}


def _of_converter(made: MadeWith, now: NowWith) -> Staleness | None:
    if not made.converter_commit and made.converter_code is None:
        return None
    if made.converter_commit and made.converter_commit == now.converter_commit:
        return Staleness("fresh")
    old, new = made.converter_code, now.converter_code
    if old is None or new is None or old.unknown or new.unknown:
        why = next((code.unknown for code in (new, old) if code and code.unknown), "it was not recorded")
        return Staleness("unknown", (f"its converter cannot be compared: {why}",))
    if old.form != new.form:
        return Staleness("unknown", ("another version of llama-mgr recorded its converter in another way",))
    found = changes(old, new)
    state: State = "stale" if any(one.weight == "architecture" for one in found) else "maybe" if found else "fresh"
    return Staleness(state, tuple(_sentence(one, _since(made)) for one in found))


def _of_quantizer(made: MadeWith, now: NowWith) -> Staleness | None:
    if not made.quantizer_commit and not made.quantizer_code:
        return None
    if made.quantizer_commit and made.quantizer_commit == now.quantizer_commit:
        return Staleness("fresh")
    if not made.quantizer_code or not now.quantizer_code:
        return Staleness("unknown", ("its quantizer cannot be compared: the source of one of the builds is not here",))
    # By name alone: upstream has moved them, unchanged.
    old, new = ({PurePosixPath(path).name: path for path in code} for code in (made.quantizer_code, now.quantizer_code))
    changed = [
        _file_sentence(old.get(name), new.get(name), _since(made))
        for name in sorted(old.keys() | new.keys())
        if made.quantizer_code.get(old.get(name, "")) != now.quantizer_code.get(new.get(name, ""))
    ]
    return Staleness("stale" if changed else "fresh", tuple(changed))


def _since(made: MadeWith) -> str:
    return f"since {made.build_version}" if made.build_version else "since it was made"


def _sentence(change: Change, since: str) -> str:
    file, _, name = change.unit.partition(":")
    words = _WORDS[change.kind]
    if name:
        words = f"{words} {'from' if change.kind == 'removed' else 'in'} {file}"
    return f"{name or file} {words} {since}"


def _file_sentence(old: str | None, new: str | None, since: str) -> str:
    kind = "added" if old is None else "removed" if new is None else "changed"
    return f"{new or old} {_WORDS[kind]} {since}"


def _shortened(reasons: list[str]) -> tuple[str, ...]:
    more = len(reasons) - _REASONS_LIMIT
    shown = [printable(reason) for reason in reasons[:_REASONS_LIMIT]]  # names of another project's code
    return tuple(shown) if more <= 0 else (*shown, f"and {more} more")
