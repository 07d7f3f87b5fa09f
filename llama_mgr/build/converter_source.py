"""What a convert script accepts, read from its source: running it would import torch first."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from llama_mgr.errors import LlamaMgrError
from llama_mgr.store import read_bounded

_LIMIT_BYTES = 16 * 1024 * 1024


def architectures(script: Path) -> list[str]:
    """Return the checkpoint architectures that the converter registers: `LlamaForCausalLM`, …; sorted.

    They are the arguments of `@ModelBase.register("LlamaForCausalLM", …)` (`@Model.register` in old versions) and the
    keys of `TEXT_MODEL_MAP` and `MMPROJ_MODEL_MAP`, in the script and, from b9190 on, in the `conversion/` package
    beside it.
    """
    files = [script, *sorted((script.parent / "conversion").glob("*.py"))]
    return sorted({name for file in files for name in _registered(_tree(file))})


def flags(script: Path) -> list[tuple[list[str], str]]:
    """Return the options of the script: their spellings, and a hint of the value that is empty for a switch."""
    found = []
    for node in ast.walk(_tree(script)):
        if isinstance(node, ast.expr) and _is_call_of(node, "add_argument"):
            spellings = [text for text in _texts(node.args) if text.startswith("-")]
            if spellings:
                found.append((_with_negations(spellings, node), _value(node)))
    return found


def syntax_tree(file: Path) -> ast.Module | None:
    """Return the syntax of a Python file of at most 16 MiB; None when it cannot be read or is not Python."""
    try:
        return ast.parse(read_bounded(file, _LIMIT_BYTES))
    except (LlamaMgrError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def registered_names(node: ast.ClassDef) -> list[str]:
    """Return the architectures that a class is registered for by its decorators."""
    calls = (decorator for decorator in node.decorator_list if _is_call_of(decorator, "register"))
    return [name for call in calls for name in _texts(call.args)]


def mapped_modules(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each architecture in the `…_MODEL_MAP`s of a module, with the module of `conversion/` that converts it."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict) and _is_map(node):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if key is not None and (pair := _texts([key, value]))[1:]:
                    yield pair[0], pair[1]


def _tree(file: Path) -> ast.Module:
    return syntax_tree(file) or ast.Module(body=[], type_ignores=[])


def _registered(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from registered_names(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict) and _is_map(node):
            yield from _texts([key for key in node.value.keys if key])


def _is_call_of(node: ast.expr, method: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method


def _is_map(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id.endswith("_MODEL_MAP") for target in targets)


def _texts(nodes: list[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def _with_negations(spellings: list[str], node: ast.Call) -> list[str]:
    action = _keyword(node, "action")
    if isinstance(action, ast.Attribute) and action.attr == "BooleanOptionalAction":
        return [*spellings, *(f"--no-{one.removeprefix('--')}" for one in spellings if one.startswith("--"))]
    return spellings


def _value(node: ast.Call) -> str:
    if _keyword(node, "action") is not None:
        return ""
    choices = _keyword(node, "choices")
    if isinstance(choices, ast.List | ast.Tuple):
        return "{" + ",".join(_texts(choices.elts)) + "}"
    metavar = _keyword(node, "metavar")
    return metavar.value if isinstance(metavar, ast.Constant) and isinstance(metavar.value, str) else "VALUE"
