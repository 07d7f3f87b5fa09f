"""Which code of a converter makes the files of an architecture, as digests that a side-car can hold.

What is covered are the class that the converter registers for the architecture, all that it inherits from, and what
these mention of other classes and modules of the converter. gguf-py is left out: its tables of tensors and constants
change with every architecture that upstream adds, so that a digest of them would call every file old within days.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from llama_mgr.build.converter_classes import ConverterClasses, Definition, Module, dotted

_FORM = 1
_SHARED_CLASSES = frozenset({"Model", "ModelBase", "TextModel", "MmprojModel", "VisionModel"})
_MMPROJ_CLASSES = frozenset({"MmprojModel", "VisionModel"})
_SHARED_FILE = "base.py"
_PACKAGE_FILE = "__init__.py"
_TABLE = "get_vocab_base_pre"
_TABLE_KEY = "chkhsh"
_LOGGER = "logger"
_SIZE_LIMIT_BYTES = 12 * 1024
_DIGEST_DIGITS = 16
_NO_EFFECT = frozenset({"annotation", "returns", "type_comment", "type_params", "kind"})


class ConverterCode(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a converter that makes files of some architectures."""

    form: int = _FORM
    """Another number means that digests were made in another way, and must not be compared."""
    units: dict[str, str] = {}
    """`conversion/llama.py:LlamaModel.set_vocab` to 16 hex digits. `…:LlamaModel` is what is outside its methods."""
    shared_by_class: bool = False
    """Whether the common base classes have one digest each, because one for each method would take too much room."""
    pre_tokenizers: int = 0
    """How many tokenizers the converter knows by their hash; the table of them is in no digest."""
    unknown: str = ""
    """Why there are no units."""


@dataclass(frozen=True)
class Change:
    """One difference between two converters."""

    unit: str
    kind: Literal["changed", "added", "removed"]
    weight: Literal["architecture", "shared"]
    """Whether it is code for few architectures, or that of the common base classes, of which each uses a part."""


def converter_code(convert_dir: Path, architectures: Sequence[str], *, mmproj: bool = False) -> ConverterCode:
    """Return the code that makes the files of `architectures`; it is read and never run.

    White space, comments, docstrings, annotations and messages to the log do not count. Nor do decorators of classes,
    which only register them, and entries in the table of tokenizers, of which upstream adds some every week.

    Args:
        convert_dir: where a build keeps its convert script, and the package `conversion/` from about b9190 on.
        architectures: what the checkpoint calls itself in its `config.json`: `LlamaForCausalLM`.
        mmproj: whether the file is the projector for images or sound rather than the language model.
    """
    classes = ConverterClasses(convert_dir)
    try:
        collected = _Units(classes)
        for architecture in architectures:
            collected.add_architecture(architecture, mmproj=mmproj)
    except (RecursionError, ValueError):
        return ConverterCode(unknown=f"the code of {classes.script} is too involved to be compared")
    if classes.unreadable:
        return ConverterCode(unknown=f"{classes.unreadable[0]} of the converter cannot be read")
    if not collected.units:
        return ConverterCode(unknown=_nothing_found(classes.script, architectures))
    units, is_large = collected.units, len(msgspec.json.encode(collected.units)) > _SIZE_LIMIT_BYTES
    return ConverterCode(
        units=dict(sorted((_by_class(units) if is_large else units).items())), shared_by_class=is_large,
        pre_tokenizers=collected.pre_tokenizers,
    )  # fmt: skip


def changes(old: ConverterCode, new: ConverterCode) -> tuple[Change, ...]:
    """Return how two converters of one form differ, the code of architectures first.

    What only moved to another file, as all classes did when upstream made a package of its script, has not changed.
    """
    as_classes = old.shared_by_class or new.shared_by_class
    before, after = (
        _by_class(one.units) if as_classes and not one.shared_by_class else one.units for one in (old, new)
    )
    moved = _moved(before, after)
    before = {moved.get(unit, unit): digest for unit, digest in before.items()}
    found = (_change(unit, before.get(unit), after.get(unit)) for unit in sorted({*before, *after}))
    return tuple(sorted((one for one in found if one), key=lambda one: one.weight))


def _change(unit: str, before: str | None, after: str | None) -> Change | None:
    if before == after:
        return None
    weight: Literal["architecture", "shared"] = "shared" if _is_shared(unit) else "architecture"
    return Change(unit, "added" if before is None else "removed" if after is None else "changed", weight)


def _moved(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for unit in before.keys() - after.keys():
        same = [one for one in after.keys() - before.keys() if _name(one) == _name(unit)]
        if _name(unit) and len(same) == 1:
            found[unit] = same[0]
    return found


def _name(unit: str) -> str:
    return unit.partition(":")[2]


def _is_shared(unit: str) -> bool:
    file, _, name = unit.partition(":")
    return file.endswith(f"/{_SHARED_FILE}") or name.partition(".")[0] in _SHARED_CLASSES


def _by_class(units: Mapping[str, str]) -> dict[str, str]:
    """Return `units` with one digest for each shared class."""
    found = {unit: digest for unit, digest in units.items() if not _is_shared(unit)}
    shared: dict[str, list[str]] = {}
    for unit, digest in sorted(units.items()):
        if unit not in found:
            file, _, name = unit.partition(":")
            shared.setdefault(f"{file}:{name.partition('.')[0]}", []).append(f"{name} {digest}")
    return found | {name: _digest(lines) for name, lines in shared.items()}


def _nothing_found(script: str | None, architectures: Sequence[str]) -> str:
    if script is None:
        return "there is no converter"
    return f"{script} has no code for {', '.join(architectures) or 'a checkpoint that names no architecture'}"


# -- what belongs to an architecture -----------------------------------------------------------------------------------


class _Units:
    """Collects units, each once."""

    def __init__(self, classes: ConverterClasses) -> None:
        self._classes = classes
        self.units: dict[str, str] = {}
        self.pre_tokenizers = 0

    def add_architecture(self, architecture: str, *, mmproj: bool) -> None:
        lines = [self._classes.ancestors(one) for one in self._classes.registered_for(architecture)]
        fitting = [line for line in lines if mmproj == any(one.name in _MMPROJ_CLASSES for one in line)]
        for one in (one for line in fitting or lines for one in line):
            for name in _members(one):
                self._add_member(one, name)
        if not lines:
            self._add_modules(self._classes.modules_for(architecture))

    def _add_modules(self, modules: Iterable[Module]) -> None:
        # A map names the module, but no class in it is registered in the way that we know: then all of it counts.
        for module in modules:
            if module.file != self._classes.script:
                self.units[module.file] = _digest([_written(module.tree)])

    def _add_member(self, one: Definition, name: str) -> None:
        self._add(f"{one.file}:{one.name}{name and '.'}{name}", one.file, _members(one)[name])

    def _add(self, unit: str, file: str, nodes: Sequence[ast.AST]) -> None:
        if unit in self.units:
            return
        if unit.endswith(f".{_TABLE}"):
            entries = sum(_is_entry(one) for node in nodes for one in ast.walk(node))
            self.pre_tokenizers = max(self.pre_tokenizers, entries)
        self.units[unit] = _digest([_written([*nodes])])
        if not _is_shared(unit):
            for path in sorted({path for node in nodes for path in _mentions(node)}):
                self._add_mentioned(file, path)

    def _add_mentioned(self, file: str, path: tuple[str, ...]) -> None:
        """Add a function or constant of a module, or a member of another class, which it may have inherited."""
        found, attributes = self._classes.meaning(file, path) or (None, ())
        if found and found.file.endswith(f"/{_PACKAGE_FILE}"):
            return None  # its maps change with every new architecture
        if found and not found.class_node:
            self._add(f"{found.file}:{found.name}", found.file, found.nodes)
        elif found and attributes:
            for one in self._classes.ancestors(found):
                if attributes[0] in _members(one):
                    return self._add_member(one, attributes[0])
            return self._add_member(found, "")
        return None


def _mentions(node: ast.AST) -> Iterator[tuple[str, ...]]:
    for one in ast.walk(node):
        if isinstance(one, ast.Name | ast.Attribute) and (path := dotted(one)) and path[0] != _LOGGER:
            yield path


def _members(one: Definition) -> dict[str, list[ast.AST]]:
    """Return the nodes of each method of a class, and under the empty name all else."""
    node = one.class_node
    if node is None:
        return {}
    found: dict[str, list[ast.AST]] = {"": [*node.bases, *node.keywords]}
    for statement in node.body:
        name = statement.name if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) else ""
        found.setdefault(name, []).append(statement)
    return found


# -- digests -----------------------------------------------------------------------------------------------------------


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_DIGEST_DIGITS]


def _written(value: object) -> str:
    """Return the syntax as text that is the same for every version of Python, unlike that of `ast.dump`."""
    if isinstance(value, ast.AnnAssign) and value.value:
        return _written(ast.Assign(targets=[value.target], value=value.value))
    if isinstance(value, ast.AST):
        fields = ((name, one) for name, one in ast.iter_fields(value) if name not in _NO_EFFECT)
        return f"{type(value).__name__}({','.join(f'{name}={_written(one)}' for name, one in fields if one != [])})"
    if isinstance(value, list):
        return f"[{','.join(_written(one) for one in value if not _is_idle(one))}]"
    return ascii(value)


def _is_idle(node: object) -> bool:
    """Tell whether a statement changes no file: a docstring, a bare annotation, a message, a table entry."""
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    if isinstance(node, ast.Expr):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        return isinstance(node.value, ast.Constant) or (called is not None and dotted(called)[:1] == (_LOGGER,))
    return _is_entry(node)


def _is_entry(node: object) -> bool:
    """Tell whether a statement is `if chkhsh == "…": res = "…"`, by which a tokenizer is known."""
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare) or node.orelse or len(node.body) != 1:
        return False
    key, value, result = node.test.left, node.test.comparators[0], node.body[0]
    return (
        isinstance(key, ast.Name) and key.id == _TABLE_KEY and isinstance(value, ast.Constant)
        and isinstance(result, ast.Assign) and isinstance(result.value, ast.Constant)
    )  # fmt: skip
