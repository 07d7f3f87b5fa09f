"""The memory of this machine, put together for commands that say what fits."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_mgr.cli.context import Context
    from llama_mgr.models.memory import Machine, MemoryPlan


def machine_of(context: "Context", *, fresh: bool = False) -> "Machine":
    """Return the memory of this machine.

    Args:
        context: of the command.
        fresh: ask the GPU what is free now, which may take seconds; otherwise what it has counts as free.
    """
    from llama_mgr.build.gpu_memory import gpu_memory
    from llama_mgr.build.host import host_memory
    from llama_mgr.models.memory import Machine

    total, free = host_memory(context.environ)
    gpu = gpu_memory(context.environ, context.home.cache_dir, memory_bytes=total, free_memory_bytes=free, fresh=fresh)
    return Machine(total, free, gpu.total_bytes, gpu.free_bytes, gpu.is_ram)


def memory_document(plan: "MemoryPlan", machine: "Machine") -> dict[str, Any]:
    """Return what `show --json` and `info --json` say of the memory that a model takes on `machine`."""
    from llama_mgr.models.memory import verdict

    return {
        "context_tokens": plan.context_tokens,
        "weights_bytes": plan.weights_bytes,
        "kv_cache_bytes": plan.kv_cache_bytes,
        "compute_bytes": plan.compute_bytes,
        "total_bytes": plan.total_bytes,
        "fits": verdict(plan.total_bytes, machine),
        "fits_now": verdict(plan.total_bytes, machine, free=True),
    }
