"""The classes of a converter, found by following its imports; nothing of it is run."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.build.artifacts import CONVERTER_NAMES
from llama_mgr.build.converter_source import mapped_modules, registered_names, syntax_tree

PACKAGE = "conversion"
"""The directory beside the script that has held its classes since about b9190."""


@dataclass(frozen=True)
class Definition:
    """What a module defines under one name: a class, a function or a constant."""

    file: str
    """Below the converter's directory: `conversion/llama.py`."""
    name: str
    nodes: tuple[ast.stmt, ...]

    @property
    def class_node(self) -> ast.ClassDef | None:
        """The class, if it is one."""
        last = self.nodes[-1]
        return last if isinstance(last, ast.ClassDef) else None


@dataclass(frozen=True)
class Module:
    """One file of the converter: what it defines, and where the names that it imports come from."""

    file: str
    tree: ast.Module
    definitions: dict[str, Definition]
    imports: dict[str, tuple[str, ...]]
    """Name here to the absolute dotted name: `TextModel` to `conversion`, `base`, `TextModel`."""


class ConverterClasses:
    """The classes in a converter's directory. Each file is read once, when it is first needed."""

    def __init__(self, convert_dir: Path) -> None:
        """Look into `convert_dir`; nothing is read yet."""
        self._convert_dir = convert_dir
        self._modules: dict[str, Module | None] = {}
        self.script = next((name for name in CONVERTER_NAMES if (convert_dir / name).is_file()), None)
        self.unreadable: list[str] = []
        """Files of the converter that are no Python, or too large."""

    def modules_for(self, architecture: str) -> list[Module]:
        """Return the modules that convert an architecture: those the package's maps name, else the script."""
        package = self._imported((PACKAGE,))
        named = [module for name, module in mapped_modules(package.tree) if name == architecture] if package else []
        found = [self._imported((PACKAGE, *name.split("."))) for name in dict.fromkeys(named)]
        if not named and self.script:
            found = [self._read(self.script)]
        return [module for module in found if module]

    def registered_for(self, architecture: str) -> list[Definition]:
        """Return the classes that are registered for an architecture: of text, of images and sound, or both."""
        defined = (one for module in self.modules_for(architecture) for one in module.definitions.values())
        return [one for one in defined if one.class_node and architecture in registered_names(one.class_node)]

    def ancestors(self, first: Definition) -> list[Definition]:
        """Return a class and all that it inherits from within the converter, also by classes inside it; nearest first.

        A class that inherits from itself in a circle is named once.
        """
        found, waiting = {(first.file, first.name): first}, [first]
        for one in waiting:
            for base in _bases(one):
                parent, attributes = self.meaning(one.file, base) or (None, ())
                if parent and parent.class_node and not attributes and (parent.file, parent.name) not in found:
                    found[parent.file, parent.name] = parent
                    waiting.append(parent)
        return waiting

    def meaning(self, file: str, path: Sequence[str]) -> tuple[Definition, tuple[str, ...]] | None:
        """Return what a dotted name means in `file`, and the attributes of it that are left over.

        Returns:
            None when the converter's own files do not define it.
        """
        module = self._read(file)
        return self._named(module, tuple(path), set()) if module else None

    def _named(
        self, module: Module, path: tuple[str, ...], seen: set[tuple[str, ...]]
    ) -> tuple[Definition, tuple[str, ...]] | None:
        if path[0] in module.definitions:
            return module.definitions[path[0]], path[1:]
        whole = (*module.imports.get(path[0], ()), *path[1:])
        if path[0] not in module.imports or whole in seen:
            return None
        seen.add(whole)
        for cut in range(len(whole) - 1, 0, -1):
            origin = self._imported(whole[:cut])
            if origin:
                return self._named(origin, whole[cut:], seen)
        return None

    def _imported(self, path: tuple[str, ...]) -> Module | None:
        if path[0] != PACKAGE or not all(part.isidentifier() for part in path):
            return None
        name = "/".join(path)
        is_package = (self._convert_dir / name).is_dir()
        return self._read(f"{name}/__init__.py" if is_package else f"{name}.py")

    def _read(self, file: str) -> Module | None:
        if file not in self._modules:
            path = self._convert_dir / file
            tree = syntax_tree(path) if path.is_file() else None
            if tree is None and path.is_file():
                self.unreadable.append(file)
            self._modules[file] = _module(file, tree) if tree else None
        return self._modules[file]


def _module(file: str, tree: ast.Module) -> Module:
    definitions: dict[str, Definition] = {}
    imports: dict[str, tuple[str, ...]] = {}
    package = tuple(file.split("/")[:-1])
    for node in _statements(tree.body):
        for name in _defined(node):
            before = definitions[name].nodes if name in definitions else ()
            definitions[name] = Definition(file, name, (*before, node))
        imports.update(_imports(node, package))
    return Module(file, tree, definitions, imports)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *(one for handler in node.handlers for one in handler.body)])
            yield from _statements([*node.orelse, *node.finalbody])
        else:
            yield node


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _imports(node: ast.stmt, package: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            path = tuple(alias.name.split("."))
            yield (alias.asname, path) if alias.asname else (path[0], path[:1])
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        for alias in node.names:
            yield alias.asname or alias.name, (*base, *(node.module.split(".") if node.module else ()), alias.name)


def _bases(one: Definition) -> Iterator[tuple[str, ...]]:
    if one.class_node:
        for node in ast.walk(one.class_node):
            if isinstance(node, ast.ClassDef):
                yield from filter(None, map(dotted, node.bases))


def dotted(node: ast.expr) -> tuple[str, ...]:
    """Return the parts of a name such as `base.TextModel`; nothing for any other expression."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return (*before, node.attr) if before else ()
    return ()
