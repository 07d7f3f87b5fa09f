"""File names that others chose, in a repository on the hub: which of them may become paths here.

The rules are those of POSIX and of Windows on every system: models directories lie on USB disks and network shares,
and what is refused here cannot surprise there.
"""

import re
import unicodedata
from collections.abc import Iterable

from llama_mgr.errors import RefusedError
from llama_mgr.names import canonical
from llama_mgr.text import printable

PART_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 1024
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DRIVE = re.compile(r"[A-Za-z]:")
# Windows takes these for devices, whatever follows the first dot ("Naming Files, Paths, and Namespaces").
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in "0123456789\u00b9\u00b2\u00b3"}
)


def checked_repo_path(name: str) -> tuple[str, ...]:
    """Return the parts of the file name `name`, which a repository lists; `paths.join_below` takes them.

    Raises:
        RefusedError: it could leave the directory that it is put into, on this system or another one.
    """
    trouble = _path_trouble(name)
    if trouble:
        raise RefusedError("cannot use the file name", name, trouble)
    return tuple(name.split("/"))


def checked_listing(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return every file name of a repository with its parts, as `checked_repo_path` gives them.

    Raises:
        RefusedError: one name is not safe, or two would be one file where case and Unicode form do not count, or one
            would be a file and a directory.
    """
    listing: dict[str, tuple[str, ...]] = {}
    by_form: dict[str, str] = {}
    directories: dict[str, str] = {}
    for name in names:
        listing[name] = checked_repo_path(name)
        form = canonical(name)
        if form in by_form:
            raise _collision(by_form[form], name, "they differ at most in case or Unicode form")
        by_form[form] = name
        for place, character in enumerate(form):
            if character == "/":
                directories.setdefault(form[:place], name)
    for form in directories.keys() & by_form.keys():
        raise _collision(by_form[form], directories[form], "the first would be a file and a directory")
    return listing


def _collision(first: str, second: str, why: str) -> RefusedError:
    return RefusedError("cannot use the file names", first, f"and '{printable(second)}': {why}")


def _path_trouble(name: str) -> str | None:
    if len(name) > PATH_LIMIT_BYTES or len(name.encode("utf-8", "surrogatepass")) > PATH_LIMIT_BYTES:
        return f"it is longer than {PATH_LIMIT_BYTES} bytes"
    if not (name.isascii() and name.isprintable()) and any(unicodedata.category(one) in _UNSHOWN for one in name):
        return "it holds control characters, or others that are not shown"
    if "\\" in name:
        return "a file name has no backslash"
    if name.startswith("/"):
        return "it is an absolute path"
    if _DRIVE.match(name):
        return "it names a drive"
    return next((trouble for part in name.split("/") if (trouble := _part_trouble(part))), None)


def _part_trouble(part: str) -> str | None:
    if part in {"", ".", ".."}:
        return "a part of it is empty, '.' or '..'"
    if len(part.encode()) > PART_LIMIT_BYTES:
        return f"a part of it is longer than {PART_LIMIT_BYTES} bytes"
    if ":" in part:
        return "a file name has no colon"
    if part[-1] in ". ":
        return "a part of it ends in a dot or a space"
    if part.partition(".")[0].rstrip().casefold() in _DEVICES:
        return "Windows takes a part of it for a device"
    return None
