"""Whether a model fits: how much memory it needs, and how much there is. Pure arithmetic.

Weights take their size on disk: llama.cpp maps the file, or copies it to the GPU as it is. The cache is exact
(kv_cache.py). The rest is an upper estimate, see `_compute_bytes`.
"""

from dataclasses import dataclass
from typing import Literal

from llama_mgr.models.traits import Traits

DEFAULT_CONTEXT_TOKENS = 4096
DEFAULT_SEQUENCES = 4
"""Slots of llama-server unless told otherwise (tools/server/server.cpp of b11434: "n_parallel = 4 and kv_unified").

Unified means that the slots share the cells of the context: a full cache does not grow with them. Windows and recurrent
states do, see kv_cache.py.
"""
_GIB = 1024**3

_BATCH_TOKENS = 512  # llama-server's default --ubatch-size
_MASK_BYTES = 2  # an f16 for each token of the batch and of the context
_ACTIVATION_BYTES = 96  # for each token of the batch and each number of the embedding

# The share of the weights that a cache of 4096 tokens takes in models of 7 B and more is 2 to 10 per cent.
_USUAL_CACHE_SHARE = 0.1
_USUAL_REST_BYTES = 300 * 1024**2

_WORTHWHILE_GPU_SHARE = 8  # with less than an eighth of a model on it, a GPU does not help

Verdict = Literal["gpu", "partly", "ram", "no"]
"""It fits on the GPU; on GPU and RAM together; in RAM, with no GPU worth using; nowhere."""


@dataclass(frozen=True)
class Machine:
    """The memory of a machine; 0 where it has none, or nobody could tell."""

    ram_bytes: int
    ram_free_bytes: int
    gpu_bytes: int = 0
    """Of all GPUs together; on a Mac what Metal may use."""
    gpu_free_bytes: int = 0
    gpu_is_ram: bool = False
    """Whether both are the same memory, as on a Mac."""


@dataclass(frozen=True)
class MemoryPlan:
    """What serving a model takes, part by part."""

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    context_tokens: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes


def memory_plan(
    traits: Traits,
    size_bytes: int,
    context_tokens: int | None = None,
    *,
    mmproj_bytes: int = 0,
    sequences: int = DEFAULT_SEQUENCES,
) -> MemoryPlan:
    """Return what serving a model takes.

    Args:
        traits: of the model.
        size_bytes: of all its files.
        context_tokens: how long the context shall be; None: 4096, or what the model was trained for if that is less.
        mmproj_bytes: of its projector.
        sequences: how many slots share the context; by default as many as llama-server has.
    """
    context = context_tokens or min(traits.context_tokens or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)
    if traits.kv_cache is not None:
        cache = traits.kv_cache.size_bytes(context, sequences)
    else:
        cache = int(size_bytes * _USUAL_CACHE_SHARE * context / DEFAULT_CONTEXT_TOKENS)
    return MemoryPlan(size_bytes + mmproj_bytes, cache, _compute_bytes(traits, context, sequences), context)


def _compute_bytes(traits: Traits, context_tokens: int, sequences: int) -> int:
    """Return what the computation of one batch takes at most.

    Measured with llama-server b11434 on a CPU, flash attention on, "compute buffer size" in its log: the attention mask
    of the batch, and four times the width of the feed-forward network in f32 for each token. That width is 2.7 to 6
    times the embedding, experts in use counted as one network; 6 is taken here. Ratios of this to what was measured:
    dense models of 0.1 to 8 B 1.2 to 1.7, gemma3 1.0, qwen3moe 1.1, mamba2 and jamba 1.5. Versions from before 2026
    hold the output of the whole batch as well (2 KiB for each token of the vocabulary); `verdict` leaves room for that.
    """
    output = sequences * 4 * (traits.vocabulary_size or 0)
    per_token = _MASK_BYTES * context_tokens + _ACTIVATION_BYTES * (traits.embedding_size or 0)
    return _BATCH_TOKENS * per_token + output


def verdict(total_bytes: int, machine: Machine, *, free: bool = False) -> Verdict:
    """Return where something of `total_bytes` fits, with room left for the rest of the machine.

    Args:
        total_bytes: as a MemoryPlan says.
        machine: this one.
        free: count what is free now (before a download or a start), not what there is (which does not change from one
            listing to the next).
    """
    gpu = _usable(machine.gpu_free_bytes if free else machine.gpu_bytes)
    ram = _usable(machine.ram_free_bytes if free else machine.ram_bytes)
    if total_bytes <= gpu:
        return "gpu"
    worthwhile = gpu * _WORTHWHILE_GPU_SHARE >= total_bytes
    if gpu and worthwhile and total_bytes <= (max(gpu, ram) if machine.gpu_is_ram else gpu + ram):
        return "partly"
    return "ram" if total_bytes <= ram else "no"


def _usable(memory_bytes: int) -> int:
    """Leave what `--fit-target` of llama-server leaves by default, 1 GiB, but no more than a tenth."""
    return memory_bytes - min(_GIB, memory_bytes // 10)


def usual_total_bytes(size_bytes: int) -> int:
    """Return what serving files of `size_bytes` usually takes, when their header is not known: a few per cent more."""
    return size_bytes + int(size_bytes * _USUAL_CACHE_SHARE) + _USUAL_REST_BYTES


def size_verdict(size_bytes: int, machine: Machine, *, free: bool = False) -> Verdict:
    """Return where a model whose files have `size_bytes` fits, when its header is not known, as on the hub."""
    return verdict(usual_total_bytes(size_bytes), machine, free=free)
