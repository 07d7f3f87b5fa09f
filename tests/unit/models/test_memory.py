"""What fits where: plans of models, and verdicts about machines."""

import msgspec
import pytest

from llama_mgr.models.gguf import parse_gguf
from llama_mgr.models.kv_cache import KvCache
from llama_mgr.models.memory import Machine, Verdict, memory_plan, size_verdict, usual_total_bytes, verdict
from llama_mgr.models.traits import Traits, traits_of
from tests.tools.gguf_file import model_bytes
from tests.tools.gguf_fuzz import BytesSource

MIB, GIB = 1024**2, 1024**3


def small(context: int = 8192) -> Traits:
    content = model_bytes(context=context)
    return traits_of(parse_gguf(BytesSource(content, len(content)), "x"), "x")


def smollm() -> Traits:
    return msgspec.structs.replace(
        small(), embedding_size=576, vocabulary_size=49152, kv_cache=KvCache(23040), context_tokens=8192
    )


def test_a_plan_in_its_parts() -> None:
    """llama-server b11434 logged, in MiB: cache 90.00, compute buffer 18.64, output 0.75."""
    plan = memory_plan(smollm(), 98_362_432)
    assert (plan.weights_bytes, plan.context_tokens) == (98_362_432, 4096)
    assert plan.kv_cache_bytes == 90 * MIB
    assert 18.64 + 0.75 <= plan.compute_bytes / MIB <= 2 * (18.64 + 0.75)
    assert plan.total_bytes == plan.weights_bytes + plan.kv_cache_bytes + plan.compute_bytes


# 8 or 10 KV heads of 256 in gemma3, of whose layers every sixth sees all; 36 of 48 layers of qwen3next have a state.
SERVED = [
    (KvCache(8 * 8192, 40 * 8192, 1024), 1536),  # gemma3-12b
    (KvCache(10 * 8192, 52 * 8192, 1024), 1984),  # gemma3-27b
    (KvCache(12 * 2048, state_bytes=36 * 2_195_456), 398),  # qwen3-next
    (KvCache(131_072), 512),  # llama 3 of 8 B: all slots share one cache
]


@pytest.mark.parametrize(("cache", "expected_mib"), SERVED)
def test_the_cache_is_that_of_a_server_with_its_four_slots(cache: KvCache, expected_mib: int) -> None:
    served = memory_plan(msgspec.structs.replace(small(), kv_cache=cache), GIB, 4096)
    assert round(served.kv_cache_bytes / MIB) == expected_mib


@pytest.mark.parametrize(
    ("trained", "asked", "expected"), [(8192, None, 4096), (2048, None, 2048), (2048, 1000, 1000), (2048, 9999, 9999)]
)
def test_which_context_is_planned_for(trained: int, asked: int | None, expected: int) -> None:
    assert memory_plan(small(trained), 1, asked).context_tokens == expected


def test_a_projector_counts_as_weights() -> None:
    assert memory_plan(small(), 100, mmproj_bytes=50).weights_bytes == 150


def test_an_unknown_cache_is_estimated() -> None:
    unknown = msgspec.structs.replace(small(), kv_cache=None)
    assert memory_plan(unknown, 10 * GIB, 4096).kv_cache_bytes == GIB
    assert memory_plan(unknown, 10 * GIB, 8192).kv_cache_bytes == 2 * GIB


def test_more_context_needs_more() -> None:
    plans = [memory_plan(smollm(), 98_362_432, context).total_bytes for context in (1024, 4096, 8192)]
    assert plans == sorted(set(plans))


MAC = Machine(32 * GIB, 20 * GIB, 21 * GIB, 20 * GIB, gpu_is_ram=True)


@pytest.mark.parametrize(
    ("total_bytes", "machine", "expected"),
    [
        (4 * GIB, Machine(16 * GIB, 0), "ram"),
        (15 * GIB, Machine(16 * GIB, 0), "ram"),
        (15 * GIB + 1, Machine(16 * GIB, 0), "no"),
        (4 * GIB, Machine(16 * GIB, 0, 8 * GIB), "gpu"),
        (7.3 * GIB, Machine(16 * GIB, 0, 8 * GIB), "partly"),
        (22 * GIB, Machine(16 * GIB, 0, 8 * GIB), "partly"),
        (23 * GIB, Machine(16 * GIB, 0, 8 * GIB), "no"),
        (60 * GIB, Machine(64 * GIB, 0, 512 * MIB), "ram"),  # not worth it
        (20 * GIB, MAC, "gpu"),
        (25 * GIB, MAC, "partly"),
        (32 * GIB, MAC, "no"),  # GPU and RAM are the same memory
        (0.8 * GIB, Machine(GIB, 0), "ram"),
        (0.95 * GIB, Machine(GIB, 0), "no"),
        (1, Machine(0, 0), "no"),
    ],
)
def test_verdicts(total_bytes: float, machine: Machine, expected: Verdict) -> None:
    assert verdict(int(total_bytes), machine) == expected


def test_what_is_free_now_counts_when_asked() -> None:
    machine = Machine(64 * GIB, 4 * GIB, 24 * GIB, 2 * GIB)
    assert verdict(10 * GIB, machine) == "gpu"
    assert verdict(10 * GIB, machine, free=True) == "no"
    assert verdict(5 * GIB, machine, free=True) == "partly"


def test_a_size_alone_needs_a_margin() -> None:
    machine = Machine(8 * GIB, 8 * GIB)
    assert size_verdict(6 * GIB, machine) == "ram"
    assert size_verdict(int(7.1 * GIB), machine) == "no"
    assert usual_total_bytes(98_362_432) > memory_plan(smollm(), 98_362_432).total_bytes


def test_the_usual_total_covers_common_models() -> None:
    """Llama 3 of 8 B in Q4_K_M: 32 layers, 8 KV heads of 128, 4096 wide."""
    llama3 = msgspec.structs.replace(
        small(), embedding_size=4096, vocabulary_size=128_256, kv_cache=KvCache(32 * 8 * 256 * 2), context_tokens=8192
    )
    size_bytes = 4_920_734_272
    plan = memory_plan(llama3, size_bytes)
    assert plan.kv_cache_bytes == 512 * MIB
    assert plan.total_bytes <= usual_total_bytes(size_bytes) <= 1.1 * plan.total_bytes
