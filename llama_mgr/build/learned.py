"""What recipes learn from tools that were found: their roots, versions of libraries, limits written in headers."""

from collections.abc import Mapping
from pathlib import Path

from llama_mgr.build import discovery
from llama_mgr.build.condition import filled
from llama_mgr.build.found import FoundTool
from llama_mgr.build.recipe import Fact

_READ_LIMIT_CHARACTERS = 4 * 1024 * 1024


def learned(fact: Fact, found: FoundTool, facts: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """Return the value of `fact` about the tool `found`, or None when it cannot be learned.

    A value that is an existing absolute path comes without `..` and links.
    """
    if fact.parent:
        parents = discovery.real_program(found.path).parents
        return str(parents[fact.parent - 1]) if fact.parent <= len(parents) else None
    said = _said(fact.command, {**facts, "path": str(found.path)}, environ) if fact.command else _read(fact.file, facts)
    value = discovery.first_match(fact.pattern, said) if said is not None else None
    return discovery.same_place(value) if value is not None else None


def _said(command: list[str], facts: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    words = discovery.filled_words(command, facts)
    return discovery.answer(words, environ) if words is not None else None


def _read(name: str, facts: Mapping[str, str]) -> str | None:
    path = filled(name, facts)
    if path is None or not path.startswith("/"):
        return None
    for match in sorted(Path("/").glob(path.lstrip("/"))):
        try:
            with match.open(encoding="utf-8", errors="replace") as file:
                return file.read(_READ_LIMIT_CHARACTERS)
        except OSError:
            continue
    return None
