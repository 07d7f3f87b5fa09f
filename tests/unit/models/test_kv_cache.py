"""How much memory a context takes: against what llama-server b11434 logged, and against its rules by hand."""

import pytest

from llama_mgr.models.gguf import Array, Value
from llama_mgr.models.kv_cache import KvCache, kv_cache_of
from llama_mgr.models.kv_rules import KV_RULES
from llama_mgr.models.model_facts import ModelFacts

MIB = 1024**2


def facts(architecture: str, **keys: int | list[int] | list[bool]) -> ModelFacts:
    """Return facts whose keys are written with `__` for a dot; `heads`, `kv`, `key`, `value` are short forms."""
    short = {"heads": "attention.head_count", "kv": "attention.head_count_kv", "layers": "block_count"}
    short |= {"key": "attention.key_length", "value": "attention.value_length", "embd": "embedding_length"}
    short |= {"window": "attention.sliding_window", "pattern": "attention.sliding_window_pattern"}
    metadata: dict[str, Value] = {}
    for name, value in keys.items():
        key = f"{architecture}.{short.get(name, name.replace('__', '.'))}"
        metadata[key] = Array("int32", len(value), tuple(value)) if isinstance(value, list) else value
    return ModelFacts(metadata, architecture)


def cache(architecture: str, **keys: int | list[int] | list[bool]) -> KvCache:
    found = kv_cache_of(facts(architecture, **keys))
    assert found is not None
    return found


# Models of these shapes were loaded by llama-server b11434 (four slots); its log gives the sizes of its KV and RS
# buffers in MiB, rounded to 0.01.
LOGGED = [
    (cache("llama", layers=30, embd=576, heads=9, kv=3), 4096, 90.00),
    (cache("llama", layers=4, embd=2048, heads=32, kv=8), 4096, 32.00),
    (cache("llama", layers=4, embd=2048, heads=32, kv=8), 16384, 128.00),
    (cache("gemma3", layers=13, embd=1280, heads=4, kv=1, key=256, value=256, window=512), 4096, 35.50),
    (cache("gemma3", layers=13, embd=1280, heads=4, kv=1, key=256, value=256, window=512), 16384, 59.50),
    (cache("qwen3moe", layers=3, embd=2048, heads=32, kv=4, key=128, value=128), 4096, 24.00),
    (
        cache("deepseek2", layers=26, embd=512, heads=8, kv=1, key=576, value=512, attention__key_length_mla=192,
              attention__value_length_mla=128),
        4096, 117.00,
    ),
    (
        cache("mamba2", layers=4, embd=1024, heads=0, kv=0, ssm__conv_kernel=4, ssm__inner_size=2048,
              ssm__state_size=128, ssm__group_count=1),
        4096, 16.42,
    ),
    (
        cache("jamba", layers=8, embd=1024, heads=16, kv=[0, 4, 0, 0, 0, 4, 0, 0], ssm__conv_kernel=4,
              ssm__inner_size=2048, ssm__state_size=16),
        4096, 11.56,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("found", "context", "logged_mib"), LOGGED)
def test_as_the_server_logs_it(found: KvCache, context: int, logged_mib: float) -> None:
    assert found.size_bytes(context, 4) / MIB == pytest.approx(logged_mib, abs=0.01)


def test_contexts_are_rounded_up() -> None:
    found = KvCache(10)
    assert [found.size_bytes(tokens) for tokens in (1, 256, 257)] == [2560, 2560, 5120]


def test_a_window_is_never_longer_than_the_context() -> None:
    found = KvCache(0, window_bytes_per_token=10, window_tokens=4096)
    assert found.size_bytes(1024) == 10240
    assert found.size_bytes(100_000) == 10 * (4096 + 512)
    assert found.size_bytes(100_000, 3) == 10 * (3 * 4096 + 512)


def test_heads_are_key_value_heads_unless_the_file_says_otherwise() -> None:
    assert cache("gpt2", layers=12, embd=768, heads=12) == KvCache(12 * 12 * 128 * 2)
    assert cache("gpt2", layers=2, embd=768, heads=12, kv=[1, 3]) == KvCache(4 * 128 * 2)


def test_a_window_in_every_second_layer() -> None:
    """gpt-oss-20b: 24 layers, 8 KV heads of 64."""
    found = cache("gpt-oss", layers=24, embd=2880, heads=64, kv=8, key=64, value=64, window=128)
    assert found == KvCache(12 * 2048, 12 * 2048, 128)


@pytest.mark.parametrize(
    ("architecture", "keys", "full_layers", "window"),
    [
        ("gemma2", {}, {1, 3, 5, 7}, 4096),
        ("gemma2", {"window": 1024}, {1, 3, 5, 7}, 1024),
        ("gemma3", {"window": 512}, {5}, 512),
        ("gemma3", {}, set(range(8)), 0),
        ("gemma3", {"window": 0}, set(range(8)), 0),
        ("gemma3", {"window": 512, "pattern": 2}, {1, 3, 5, 7}, 512),
        ("gemma3", {"window": 512, "pattern": 1}, set(range(8)), 0),
        ("gemma3", {"window": 512, "pattern": 0}, set(), 512),
        ("gemma3", {"window": 512, "pattern": [True] * 6 + [False] * 2}, {6, 7}, 512),
        ("laguna", {"window": 512}, {0, 4}, 512),
        ("llama4", {}, {3, 7}, 8192),
        ("llama4", {"window": 1000}, {3, 7}, 8192),
        ("llama4", {"window": 0}, set(range(8)), 0),
        ("smallthinker", {}, set(range(8)), 0),
        ("smallthinker", {"window": 1}, {0, 4}, 4096),
        ("mimo2", {"window": 128, "pattern": [1, 1, 0, 1, 1, 0, 1, 1]}, {2, 5}, 128),
        ("mimo2", {"window": 128}, set(range(8)), 0),
        ("phi3", {"window": 2047}, set(range(8)), 0),
        ("llama", {"window": 4096}, set(range(8)), 0),
        ("exaone4", {"window": 4096}, set(range(8)), 0),
    ],
)
def test_which_layers_have_a_window(
    architecture: str, keys: dict[str, int | list[int]], full_layers: set[int], window: int
) -> None:
    found = cache(architecture, layers=8, embd=64, heads=8, kv=[2**layer for layer in range(8)], **keys)
    size = (8 + 8) * 2
    full = sum(2**layer for layer in full_layers) * size
    assert found == KvCache(full, 255 * size - full, window)


def test_a_window_that_only_the_big_one_has() -> None:
    assert cache("exaone4", layers=64, embd=64, heads=8).window_tokens == 4096
    assert cache("exaone4", layers=30, embd=64, heads=8).window_tokens == 0


def test_layers_with_a_window_may_have_other_heads() -> None:
    keys = {"attention__key_length_swa": 16, "attention__value_length_swa": 8}
    found = cache("gemma4", layers=2, embd=64, heads=1, key=32, value=32, window=512, pattern=[1, 0], **keys)
    assert found == KvCache(128, 48, 512)


def test_layers_that_read_the_cache_of_others() -> None:
    """gemma3n caches 20 of its 30 layers, gemma4 all but those that it says."""
    gemma3n = cache("gemma3n", layers=30, embd=64, heads=1, window=512)
    assert gemma3n == KvCache(4 * 256, 16 * 256, 512)
    gemma4 = cache("gemma4", layers=4, embd=64, heads=1, window=8, pattern=[1] * 4, attention__shared_kv_layers=3)
    assert gemma4 == KvCache(0, 256, 8)


def test_latent_attention_caches_keys_alone() -> None:
    """DeepSeek-V3: 61 layers, one head of 512 + 64; older files of it have no `_mla` keys and cache all heads."""
    mla = {"attention__key_length_mla": 192, "attention__value_length_mla": 128}
    assert cache("deepseek2", layers=61, embd=7168, heads=128, kv=1, key=576, value=512, **mla) == KvCache(70_272)
    old = cache("deepseek2", layers=61, embd=7168, heads=128, kv=128, key=192, value=128)
    assert old == KvCache(61 * 128 * (192 + 128) * 2)


def test_layers_for_drafting_are_left_out() -> None:
    assert cache("glm4moe", layers=47, embd=64, heads=1, nextn_predict_layers=1) == KvCache(46 * 256)


@pytest.mark.parametrize("architecture", ["bert", "nomic-bert", "gemma-embedding", "llada"])
def test_who_has_no_cache(architecture: str) -> None:
    assert cache(architecture, layers=12, embd=768, heads=12) == KvCache(0)


def test_states_of_recurrent_models() -> None:
    """RWKV 7 of 0.4 B: 24 layers; two token shifts of 1024 and 64 numbers for each of its 1024."""
    found = cache("rwkv7", layers=24, embd=1024, wkv__head_size=64)
    assert found == KvCache(0, state_bytes=24 * (2 * 1024 + 1024 * 64) * 4)
    assert found.size_bytes(2**20, 2) == 2 * found.state_bytes


def test_three_of_four_layers_recurrent() -> None:
    """Qwen3-Next: attention in every fourth layer, or where the file says; convolution and state in the others."""
    ssm = {"ssm__conv_kernel": 4, "ssm__inner_size": 4096, "ssm__state_size": 128, "ssm__group_count": 16}
    state = (3 * (4096 + 2 * 16 * 128) + 128 * 4096) * 4
    found = cache("qwen3next", layers=48, embd=2048, heads=16, kv=2, key=256, value=256, **ssm)
    assert found == KvCache(12 * 2 * 512 * 2, state_bytes=36 * state)
    other = cache("qwen35", layers=4, embd=2048, heads=16, kv=2, attention__recurrent_layers=[1, 0, 0, 0], **ssm)
    assert other == KvCache(3 * 2 * 256 * 2, state_bytes=state)


def test_recurrent_beside_attention() -> None:
    found = cache("falcon-h1", layers=3, embd=64, heads=1, ssm__conv_kernel=4, ssm__inner_size=10, ssm__state_size=2)
    assert found == KvCache(3 * 256, state_bytes=3 * (30 + 20) * 4)


def test_layers_with_neither_attention_nor_state() -> None:
    """Nemotron-H has layers that are only a feed-forward network."""
    found = cache("nemotron_h", layers=4, embd=64, heads=1, kv=[0, 1, 0, 1], feed_forward_length=[0, 0, 9, 9],
                  ssm__conv_kernel=2, ssm__inner_size=10, ssm__state_size=2)  # fmt: skip
    assert found == KvCache(256, state_bytes=(10 + 20) * 4)


def test_short_convolutions() -> None:
    found = cache("lfm2", layers=2, embd=64, heads=1, kv=[0, 1], shortconv__l_cache=3, window=128)
    assert found == KvCache(0, 256, 128, state_bytes=64 * 2 * 4)


def test_delta_attention() -> None:
    found = cache("kimi-linear", layers=2, embd=64, heads=2, kv=[0, 2], kda__head_dim=16, ssm__conv_kernel=4,
                  attention__key_length_mla=8, attention__value_length_mla=8, key=20, value=16)  # fmt: skip
    assert found == KvCache(2 * 20 * 2, state_bytes=(3 * 3 * 32 + 16 * 16 * 2) * 4)


def test_keys_of_an_indexer() -> None:
    mla = {"attention__key_length_mla": 192, "attention__value_length_mla": 128, "attention__indexer__key_length": 128}
    shape: dict[str, int | list[int]] = {"layers": 6, "embd": 64, "heads": 8, "kv": 1, "key": 576, "value": 512, **mla}
    assert cache("deepseek32", **shape) == KvCache(6 * (576 + 128) * 2)
    assert cache("glm-dsa", **shape, attention__indexer__types=[1, 0, 0, 1, 0, 0]) == KvCache((6 * 576 + 2 * 128) * 2)
    assert cache("glm-dsa", **shape, context_length=2**20) == KvCache((6 * 576 + 3 * 128) * 2)
    assert cache("glm-dsa", **shape, context_length=2**17) == KvCache((6 * 576 + 6 * 128) * 2)
    dense = cache(
        "minimax-m3", layers=4, embd=64, heads=1, leading_dense_block_count=1, attention__indexer__key_length=8
    )
    assert dense == KvCache(4 * 256 + 3 * (8 + 64) * 2)


def test_deepseek_4_compresses() -> None:
    found = cache("deepseek4", layers=4, embd=64, heads=8, kv=1, key=512, value=512, window=128,
                  attention__compress_ratios=[0, 4, 128, 4], attention__indexer__key_length=128)  # fmt: skip
    assert found.full_bytes_per_token == 2 * (512 + 128) * 2 / 4 + 512 * 2 / 128
    assert (found.window_bytes_per_token, found.window_tokens) == (4 * 512 * 2, 128)
    assert found.state_bytes == 2 * 4 * (2 * 8 * 2 * (512 + 128) + 128 * 512)


def test_loops_and_routers() -> None:
    assert cache("nanbeige", layers=2, embd=64, heads=1, num_loops=3) == KvCache(2 * 3 * 256)
    assert cache("graniteswitch", layers=2, embd=64, heads=2) == KvCache(2 * 2 * 128 + 128)


@pytest.mark.parametrize("layers", [0, 513, 2**30])
def test_impossible_numbers_of_layers(layers: int) -> None:
    assert kv_cache_of(facts("llama", layers=layers, embd=64, heads=1)) is None


def test_nothing_known_and_too_much() -> None:
    assert kv_cache_of(facts("llama")) is None
    assert kv_cache_of(facts("llama", layers=2)) is None
    assert kv_cache_of(facts("llama", layers=512, heads=2**30, key=2**30, value=2**30)) is None
    assert kv_cache_of(facts("deepseek4", layers=2, embd=64, heads=1)) is None


@pytest.mark.parametrize("architecture", [*KV_RULES, "llama", "deepseek4", "of-next-year"])
def test_every_rule_works_on_a_plain_model(architecture: str) -> None:
    found = kv_cache_of(facts(architecture, layers=8, embd=64, heads=8, kv=2, window=512))
    assert found is None or found.size_bytes(8192, 4) >= 0
