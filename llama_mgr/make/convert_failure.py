"""What the converter's last words mean, and which instance could do better."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llama_mgr.errors import ConvertFailedError, LlamaMgrError, UnsupportedArchitectureError
from llama_mgr.instances.instance import Instances
from llama_mgr.make.tool import ToolRun, require_success
from llama_mgr.paths import Home
from llama_mgr.text import printable


class _Known(NamedTuple):
    pattern: re.Pattern[str]
    why: str
    is_unsupported: bool
    hint: str | None = None


_KNOWN = (
    _Known(re.compile(r"Model (?P<name>\S+) is not supported"), "it does not know the architecture {name}", True),
    _Known(re.compile(r"BPE pre-tokenizer was not recognized"), "it does not know the model's tokenizer", True),
    _Known(re.compile(r"Can not map tensor '(?P<name>[^']+)'"), "it does not know the tensor {name}", True),
    _Known(
        re.compile(r"ModuleNotFoundError: No module named '(?P<name>[^']+)'"),
        "its Python environment lacks the module {name}, which this model wants", False,
    ),
    _Known(
        re.compile(r"contains custom code|requires you to execute|trust_remote_code"),
        "the checkpoint wants its own code to be run", False, "--trust-remote-code, if you trust its authors",
    ),
    _Known(re.compile(r"MemoryError|not enough memory|Cannot allocate memory"), "memory ran out", False),
)  # fmt: skip


def raise_failure(home: Home, run: ToolRun, subject: str, architectures: Sequence[str], build_id: str) -> None:
    """Raise what it means that the converter failed.

    Raises:
        UnsupportedArchitectureError: this build does not know the model; instances that do are named.
        ConvertFailedError: anything else.
    """
    text = "\n".join(run.tail)
    for known in _KNOWN:
        found = known.pattern.search(text)
        if found is None:
            continue
        kind = UnsupportedArchitectureError if known.is_unsupported else ConvertFailedError
        hint = _better(home, architectures, build_id) if known.is_unsupported else known.hint
        why = known.why.format(**{name: printable(value) for name, value in found.groupdict().items()})
        raise kind(
            f"the converter of {build_id} cannot convert", subject, why, hint=hint, tail=list(run.tail),
            log_file=run.log_file,
        )  # fmt: skip
    require_success(run, "cannot convert", subject, ConvertFailedError)


def _better(home: Home, architectures: Sequence[str], build_id: str) -> str:
    names = list(_knowing(home, architectures, build_id))
    if names:
        return f"the converter of the instance '{names[0]}' knows it: add -i {names[0]}"
    return "no other instance here knows it; a newer llama.cpp may: llama-mgr install latest, then -i with its name"


def _knowing(home: Home, architectures: Sequence[str], build_id: str) -> Iterator[str]:
    """Yield the instances, of other builds, whose converters know one of `architectures`; newest builds first."""
    instances, found = Instances(home), []
    for instance in instances:
        try:
            build = None if instance.linked is not None else instances.build_of(instance)
        except LlamaMgrError:  # damaged, which is no matter here
            continue
        if (
            build
            and build.build_id != build_id
            and set(architectures) & set(build.capabilities.converter_architectures)
        ):
            found.append((build.plan.build_number, instance.name))
    yield from (name for _, name in sorted(found, reverse=True))
