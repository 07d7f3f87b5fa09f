"""Whether what is made fits on the disk: asked before the first byte, and told when it turns out that it does not."""

from pathlib import Path

from llama_mgr.errors import NoSpaceError
from llama_mgr.models.disk_space import mount_point
from llama_mgr.store import free_bytes
from llama_mgr.text import printable, size_words

_MARGIN_BYTES = 8 * 1024 * 1024
_HINT = "`llama-mgr rm` removes models, `llama-mgr index prune` what was left unfinished; or choose another --output"


def require_room(purpose: str, subject: object, directory: Path, needed_bytes: int, *, force: bool = False) -> None:
    """Refuse work whose result of `needed_bytes` does not fit into `directory`, unless `force` is set.

    Raises:
        NoSpaceError: it does not; need, free space and file system are named.
    """
    needed_bytes += _MARGIN_BYTES + needed_bytes // 128
    free = free_bytes(directory)
    if free < needed_bytes and not force:
        raise NoSpaceError(
            f"cannot {purpose}", subject, _words(needed_bytes, free, directory), hint=f"{_HINT}; --force tries it"
        )


def require_was_not_full(purpose: str, subject: object, directory: Path, needed_bytes: int, written_bytes: int) -> None:
    """Say that the disk is full when that is why a program failed: what is missing of its result does not fit.

    Args:
        purpose: what could not be done, as a verb.
        subject: to what.
        directory: where it was written to; what the program wrote is still there.
        needed_bytes: of the whole result, as far as that is known.
        written_bytes: what there is of it.

    Raises:
        NoSpaceError: that is why.
    """
    free = free_bytes(directory)
    if free < max(needed_bytes - written_bytes, 1):
        raise NoSpaceError(
            f"cannot {purpose}", subject, _words(needed_bytes, free + written_bytes, directory), hint=_HINT
        )


def _words(needed_bytes: int, free: int, directory: Path) -> str:
    return (
        f"it needs about {size_words(needed_bytes)}, and {size_words(free)} are free on the file system of "
        f"{printable(mount_point(directory))}"
    )


def written_bytes(directory: Path) -> int:
    """Return the size of all files below `directory`."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())
