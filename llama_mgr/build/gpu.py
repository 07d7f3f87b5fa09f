"""The GPUs that are here, and the architectures to build for."""

import re
from collections.abc import Callable, Mapping, Sequence

from llama_mgr.build import discovery
from llama_mgr.build.recipe import Gpu, Probe, When


def gpu_facts(
    gpus: Sequence[Gpu], facts: Mapping[str, str], environ: Mapping[str, str], holds: Callable[[When], bool]
) -> dict[str, str]:
    """Return `gpu.archs` (a `;` list) and, when they belong to a GPU that is here, `gpu.present`.

    The first probe that sees a GPU decides; without one, the first fallback whose condition holds. Later recipes come
    first, so that a recipe can override what it inherits.
    """
    for probe in (probe for gpu in reversed(gpus) for probe in gpu.detect):
        archs = probed(probe, facts, environ)
        if archs:
            return {"gpu.present": "yes", "gpu.archs": ";".join(archs)}
    fallback = fallback_archs(gpus, holds)
    return {"gpu.archs": fallback} if fallback is not None else {}


def fallback_archs(gpus: Sequence[Gpu], holds: Callable[[When], bool]) -> str | None:
    """Return what to build for without a GPU to ask: the last recipe's first fallback whose condition holds."""
    return next((fallback.value for gpu in reversed(gpus) for fallback in gpu.fallback if holds(fallback.when)), None)


def probed(probe: Probe, facts: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    """Return the architectures that one probe sees, each once, in order of version; empty when it cannot run."""
    words = discovery.filled_words(probe.command, facts)
    said = discovery.answer(words, environ) if words is not None else None
    matches = re.finditer(probe.pattern, said or "", re.MULTILINE)
    archs = {"".join(group or "" for group in match.groups()) or match[0] for match in matches}
    return sorted(archs - set(probe.drop), key=lambda arch: (discovery.version_key(arch), arch))
