"""Aliases: short names for repositories on the hub. Some ship with llama-mgr; the user's own stand before them.

The user's lie in `aliases.toml` of the home, which only `alias add` and `alias rm` write; comments and order stay.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from llama_mgr.errors import (
    BadConfigError,
    BadInputError,
    BadNameError,
    BadReferenceError,
    LlamaMgrError,
    NameTakenError,
    UnknownModelError,
)
from llama_mgr.locks import held_lock
from llama_mgr.models.quants import split_tag, tag_of
from llama_mgr.models.reference import LATEST, HubRef, NameRef, parse_reference
from llama_mgr.names import canonical
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.store import read_bounded, write_bytes
from llama_mgr.text import did_you_mean, printable
from llama_mgr.toml_file import LIMIT_BYTES, parsed_toml, read_toml

SHIPPED_FILE = Path(__file__).with_name("aliases.toml")
NAME_FORM = "name or name:tag, each of [a-z0-9][a-z0-9._-]{0,63}"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(?::[a-z0-9][a-z0-9._-]{0,63})?")
_PREFIXES = frozenset({"f", "h", "hf", "p"})
_TABLE = "aliases"
_NEW_FILE = f"schema = 1\n\n[{_TABLE}]\n"


class AliasFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The shape of aliases.toml: `[aliases]`, name to reference."""

    schema: int = 1
    aliases: dict[str, str] = {}


@dataclass(frozen=True)
class Alias:
    """One name and what it stands for."""

    name: str
    target: HubRef
    is_own: bool
    """The user's, not shipped."""
    stands_before: HubRef | None = None
    """What the shipped alias of this name stands for, if the user's differs from it."""


class Aliases:
    """The aliases that a home can use.

    Args:
        home: whose aliases.toml is on top.
        shipped: the file of those that come with llama-mgr.
    """

    def __init__(self, home: Home, shipped: Path = SHIPPED_FILE) -> None:
        self._home = home
        self._shipped_file = shipped

    @property
    def file(self) -> Path:
        """The user's own aliases; need not exist."""
        return self._home.root / "aliases.toml"

    def expand(self, name: str) -> HubRef | None:
        """Return what `name` stands for, or None when it is no alias.

        `name:QUANT` is that quant of what `name` stands for, unless `name:QUANT` itself is an alias; `name:tag-QUANT`
        and `name:tag:QUANT` are that of what `name:tag` stands for.

        Raises:
            BadConfigError: the user's aliases.toml does not parse, or has a bad name or reference.
            NewerStateError: a newer llama-mgr wrote it.
        """
        wanted = _canonical_name(name)
        if wanted in self._targets:
            return self._targets[wanted]
        base, _, tag = name.partition(":")
        inner = split_tag(tag)
        base, quant = (f"{base}:{inner[0]}", inner[1]) if inner else (base, tag)
        target = self._targets.get(_canonical_name(base))
        if target is None or tag_of(quant) is None:
            return None
        return HubRef(target.owner, target.repo, quant, revision=target.revision)

    def entries(self) -> list[Alias]:
        """Return all aliases in the order of their names. Raises as `expand` does."""
        return [
            self._own_entry(name, target) if name in self._own else Alias(name, target, is_own=False)
            for name, target in sorted(self._targets.items())
        ]

    def suggestion(self, text: str) -> str | None:
        """Return the hint `did you mean 'x'?` when an alias is close to `text`. Raises as `expand` does."""
        return did_you_mean(_canonical_name(text), self._targets)

    def add(self, name: str, target: HubRef, reporter: Reporter) -> Alias:
        """Let `name`, in lower case, stand for `target` from now on, and return it as an entry.

        On disk afterwards: the user's aliases.toml with it; or, after an error, as before.

        Raises:
            BadNameError: the name has another form, or would mean something else.
            NameTakenError: an alias of the user's has this name, and stands for something else.
            BadConfigError: aliases.toml could not be read before.
            StorageError: the disk is full or failing.
        """
        wanted = checked_alias_name(name)

        def insert(table: Any) -> None:  # noqa: ANN401 (a table of tomlkit)
            there = self._own.get(wanted)
            if there not in {None, target}:
                raise NameTakenError(
                    "cannot use the alias", wanted, f"it stands for {there}", hint=f"llama-mgr alias rm {wanted}"
                )
            if there is None:
                table[wanted] = str(target)

        self._edit(f"alias add {wanted}", reporter, insert)
        return self._own_entry(wanted, target)

    def remove(self, name: str, reporter: Reporter) -> Alias:
        """Take an alias of the user's away, and return what it was.

        On disk afterwards: the user's aliases.toml without it. A shipped alias of this name counts again.

        Raises:
            UnknownModelError: there is none of this name.
            BadInputError: it ships with llama-mgr.
            BadConfigError: aliases.toml could not be read before.
            StorageError: the disk is full or failing.
        """
        wanted = _canonical_name(name)
        removed: list[HubRef] = []

        def delete(table: Any) -> None:  # noqa: ANN401 (a table of tomlkit)
            self._require_own(wanted)
            removed.append(self._own[wanted])
            for written in [key for key in table if _canonical_name(key) == wanted]:
                del table[written]

        self._edit(f"alias rm {wanted}", reporter, delete)
        return self._own_entry(wanted, removed[0])

    def _own_entry(self, name: str, target: HubRef) -> Alias:
        shipped = self._shipped.get(name)
        return Alias(name, target, is_own=True, stands_before=None if shipped == target else shipped)

    def _require_own(self, name: str) -> None:
        if name in self._own:
            return
        if name in self._shipped:
            hint = f"llama-mgr alias add {name} REFERENCE lets it stand for something else"
            raise BadInputError("cannot remove the alias", name, "it ships with llama-mgr", hint=hint)
        raise UnknownModelError("cannot find the alias", name, "", hint=did_you_mean(name, self._own))

    def _edit(self, purpose: str, reporter: Reporter, change: Callable[[Any], None]) -> None:
        """Change the table of the user's file with `change`, and read the file anew."""
        import tomlkit  # noqa: PLC0415 (only changes need it)

        file = self.file.resolve()  # a link to somebody's dotfiles stays a link
        with held_lock(self._home, "aliases", purpose, reporter):
            self._forget()
            before = read_bounded(file, LIMIT_BYTES) if file.exists() else b""
            parsed_toml(before, file, AliasFile)
            document = tomlkit.parse(before.decode("utf-8") or _NEW_FILE)
            if _TABLE not in document:
                document[_TABLE] = tomlkit.table()
            change(document[_TABLE])
            content = tomlkit.dumps(document).encode()
            if _targets(parsed_toml(content, file, AliasFile), file) != self._own:
                write_bytes(file, content, keep_mode=True)
            self._forget()

    def _forget(self) -> None:
        for name in ("_own", "_targets"):
            self.__dict__.pop(name, None)

    @cached_property
    def _targets(self) -> dict[str, HubRef]:
        return {**self._shipped, **self._own}

    @cached_property
    def _shipped(self) -> dict[str, HubRef]:
        return _targets(read_toml(self._shipped_file, AliasFile), self._shipped_file)

    @cached_property
    def _own(self) -> dict[str, HubRef]:
        if not (self.file.exists() or self.file.is_symlink()):
            return {}
        return _targets(read_toml(self.file, AliasFile), self.file)


def checked_alias_name(name: str) -> str:
    """Return the canonical form of `name`, if it can be the name of an alias.

    Raises:
        BadNameError: it cannot.
    """
    found = _canonical_name(name)
    if not _NAME.fullmatch(found):
        raise BadNameError("cannot use the alias", name, f"the form is {NAME_FORM}")
    if found.partition(":")[0] in _PREFIXES:
        raise BadNameError("cannot use the alias", name, "f, h, hf and p before a colon mean something else")
    return found


def checked_target(text: str, aliases: Aliases) -> HubRef:
    """Return the reference `text`, if an alias can stand for it.

    Raises:
        BadReferenceError: it is not a repository on the hub, or a part of one.
    """
    reference = parse_reference(text)
    if isinstance(reference, HubRef):
        return reference
    known = aliases.expand(text) if isinstance(reference, NameRef) else None
    hint = f"it is an alias itself: write {shlex.quote(str(known))}" if known else None
    raise BadReferenceError(
        "cannot make an alias for", text, "aliases stand for owner/name[:quant][@rev] on the hub", hint=hint
    )


def _canonical_name(name: str) -> str:
    return canonical(name).removesuffix(f":{LATEST}")


def _targets(content: AliasFile, origin: Path) -> dict[str, HubRef]:
    found: dict[str, HubRef] = {}
    for name, text in content.aliases.items():
        try:
            key, target = checked_alias_name(name), parse_reference(text)
        except LlamaMgrError as error:
            raise BadConfigError("cannot read", origin, f"{_TABLE}: {error.message}", hint=error.hint) from error
        if not isinstance(target, HubRef):
            why = f"{_TABLE}: '{printable(name)}' must stand for owner/name[:quant][@rev] on the hub"
            raise BadConfigError("cannot read", origin, f"{why} (found {printable(text)})")
        if key in found:
            raise BadConfigError("cannot read", origin, f"{_TABLE}: '{printable(key)}' is there twice")
        found[key] = target
    return found
