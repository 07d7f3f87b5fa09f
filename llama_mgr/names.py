"""The forms of names that users choose. Nothing else in the project decides what a name may look like."""

import re
import unicodedata
from collections.abc import Iterable

from llama_mgr.errors import BadInputError, BadNameError, NameTakenError

NAME_LIMIT = 64
NAME_FORM = "[a-z0-9][a-z0-9._-]{0,63}"
_NAME = re.compile(NAME_FORM)
_DEFINE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# "current" and "lock" are files of ours, "git" names would confuse tools, the rest are devices on Windows.
_RESERVED = frozenset(
    {"current", "lock", "con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))}
)


# Endings of files of ours that lie beside what is named.
_RESERVED_ENDINGS = (".json", ".lock", ".tmp", ".git")


def canonical(name: str) -> str:
    """Return the one form under which two names count as the same: NFC, lower case."""
    return unicodedata.normalize("NFC", name).casefold()


def checked_name(name: str, kind: str = "instance", taken: Iterable[str] = ()) -> str:
    """Return `name` if it is a proper name for a `kind` of thing.

    Args:
        name: what the user typed.
        kind: the noun for the sentence: `instance`, `recipe`, `preset`.
        taken: existing names; one that differs from `name` only by case or Unicode form is a conflict.

    Raises:
        NameTakenError: another thing has this name in another spelling.
        BadNameError: the form is wrong, or the name is reserved.
    """
    if not name.strip():
        raise BadNameError(f"cannot use the {kind} name", name, "it is empty")
    for existing in taken:
        if canonical(existing) == canonical(name) and existing != name:
            raise NameTakenError(
                f"cannot use the {kind} name", name, f"'{existing}' exists and differs only in spelling"
            )
    if len(name) > NAME_LIMIT:
        raise BadNameError(
            f"cannot use the {kind} name", name, f"it is longer than the limit of {NAME_LIMIT} characters"
        )
    if name.startswith("-"):
        raise BadNameError(f"cannot use the {kind} name", name, "names do not start with '-'")
    if canonical(name).split(".")[0] in _RESERVED or canonical(name).endswith(_RESERVED_ENDINGS):
        raise BadNameError(f"cannot use the {kind} name", name, "it is reserved")
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise BadNameError(f"cannot use the {kind} name", name, f"names have the form {NAME_FORM}")
    return name


def is_name(text: str) -> bool:
    """Tell whether `text` has the form of a name, reserved or not."""
    return bool(_NAME.fullmatch(text))


def checked_define_name(name: str) -> str:
    """Return `name` if it can be the name of a CMake cache variable.

    Raises:
        BadInputError: it cannot.
    """
    if not _DEFINE_NAME.fullmatch(name):
        raise BadInputError("cannot use the define", name, "only NAME=VALUE with a NAME of [A-Za-z_][A-Za-z0-9_]*")
    return name
