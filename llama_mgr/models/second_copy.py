"""A model that is on this disk already, under another name: a second copy of it costs no download."""

import secrets
from collections.abc import Callable
from pathlib import Path

from llama_mgr.errors import LlamaMgrError
from llama_mgr.models.content import Content, hash_of
from llama_mgr.models.file_ways import copied, hard_linked, reflinked
from llama_mgr.partial import renamed_to_free_name
from llama_mgr.report import Reporter
from llama_mgr.store import make_durable, sync_dir
from llama_mgr.text import printable


def second_copy(
    source: Path, target: Path, content: Content, check: Callable[[Path], object], reporter: Reporter
) -> bool:
    """Have the file `source` at `target`, too, and tell whether it is there; why not does not matter.

    On disk afterwards: the file at `target`, sharing its blocks or its inode with `source` where the file system can;
    or nothing of it.

    Args:
        source: what should have the content; it is not changed.
        target: a name that is free; if it is no longer, the file that has it is left.
        content: what is wanted; all of it is checked.
        check: raises where the file is not what it should be.
        reporter: shows the copying and checking.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")  # as `store.remove_temporaries` knows it
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if _made(source.resolve(strict=True), temporary, reporter) != content.sha256:
                return False
            check(temporary)
            return _named(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, LlamaMgrError):
        return False


def _made(source: Path, temporary: Path, reporter: Reporter) -> str:
    if reflinked(source, temporary) or hard_linked(source, temporary):
        return hash_of(temporary, reporter)
    with reporter.progress(f"copy {printable(source.name)}", source.stat().st_size, "bytes") as bar:
        return copied(source, temporary, bar)


def _named(temporary: Path, target: Path) -> bool:
    with temporary.open("rb") as file:
        make_durable(file.fileno())
    if not renamed_to_free_name(temporary, target):
        return False
    sync_dir(target.parent)
    return True
