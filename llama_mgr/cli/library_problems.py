"""What `doctor` says of the model library. Most of it are remarks: builds and instances work without."""

import shlex
from typing import Any

from llama_mgr.cli.context import Context
from llama_mgr.errors import CorruptStateError, LlamaMgrError
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.text import size_words


def library_problems(context: Context) -> list[dict[str, Any]]:
    """Return what is wrong with the library, as rows of the `problems` of `doctor --json`."""
    try:
        home = context.models_home
    except LlamaMgrError:
        return []  # it is a setting, and `doctor` says so elsewhere
    try:
        return [*_damaged_roots(home), *_catalog_problems(context, home), *_unfinished_work(home)]
    except LlamaMgrError as error:
        return [_row(error.message, str(home.root), error.hint or "llama-mgr index rebuild")]


def _damaged_roots(home: Home) -> list[dict[str, Any]]:
    from llama_mgr.models.roots import Roots

    roots = Roots(home, SilentReporter())
    try:
        roots.watched()
    except CorruptStateError as error:
        mend = "llama-mgr index add DIRECTORY   (for each that was watched; the damaged list is moved aside)"
        return [_row(error.message, str(roots.file), mend, is_damage=True)]
    return []


def _catalog_problems(context: Context, home: Home) -> list[dict[str, Any]]:
    from llama_mgr.models.library import Library

    catalog = Library(home, context.reporter).catalog()
    found = [
        _row(
            "a watched directory is not there", str(root.path), f"llama-mgr index remove {shlex.quote(str(root.path))}"
        )
        for root in catalog.missing_roots
    ]
    return found + [
        _row(
            f"no whole model: {one.why}",
            str(one.path),
            f"llama-mgr index verify --quick {shlex.quote(str(one.path))}   (it tells how to mend it)",
        )
        for one in catalog.broken
        if one.root.is_own
    ]


def _unfinished_work(home: Home) -> list[dict[str, Any]]:
    from llama_mgr.models.leftovers import leftovers

    found = leftovers(home)
    if not found:
        return []
    size = size_words(sum(one.size_bytes for one in found))
    pulls = sum(one.partial is not None for one in found)
    goes_on = "; the next pull goes on with what it left" if pulls else ""
    what = f"unfinished downloads: {pulls}, and imports: {len(found) - pulls}, which take {size}{goes_on}"
    return [_row(what, str(home.models_dir), "llama-mgr index prune")]


def _row(what: str, where: str, mend: str, *, is_damage: bool = False) -> dict[str, Any]:
    return {"what": what, "where": where, "mend": mend, "is_damage": is_damage}
