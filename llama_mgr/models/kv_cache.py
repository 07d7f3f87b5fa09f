"""How much memory the cache of a context takes, from a model's metadata.

What llama.cpp b11434 allocates with its defaults (f16 cache, no --swa-full, one cache for all slots, flash attention):
src/llama-kv-cache.cpp for a plain cache, src/llama-kv-cache-iswa.cpp for layers with a window,
src/llama-memory-recurrent.cpp and src/llama-hparams.cpp (n_embd_r, n_embd_s) for recurrent states,
src/llama-kv-cache-dsa.cpp and -msa.cpp for the keys of an indexer, src/llama-kv-cache-dsv4.cpp for DeepSeek 4.
"""

import math
from collections.abc import Sequence

import msgspec

from llama_mgr.models.kv_rules import FULL, KV_RULES, KvRule
from llama_mgr.models.model_facts import ModelFacts

_LAYERS_LIMIT = 512  # LLAMA_MAX_LAYERS
_F16_BYTES = 2
_F32_BYTES = 4
_STEP_TOKENS = 256  # llama-context.cpp and llama-kv-cache-iswa.cpp round up to this
_BATCH_TOKENS = 512  # llama-server's default --ubatch-size, which a window's cache holds on top
_SANE_BYTES = 2**48
_SHORT_DEEPSEEK4, _LONG_DEEPSEEK4 = 4, 128  # DSV4_CSA_RATIO, DSV4_HCA_RATIO


class KvCache(msgspec.Struct, frozen=True):
    """What a cache is made of; all numbers are for one sequence and an f16 cache."""

    full_bytes_per_token: int
    """Of the layers that see the whole context."""
    window_bytes_per_token: int = 0
    """Of the layers that see the last `window_tokens` only."""
    window_tokens: int = 0
    state_bytes: int = 0
    """Of recurrent layers: the same however long the context is."""

    def size_bytes(self, context_tokens: int, sequences: int = 1) -> int:
        """Return the size of a cache for `context_tokens` in all, which `sequences` slots share."""
        context = _rounded(context_tokens)
        window = _rounded(min(context, self.window_tokens * sequences + _BATCH_TOKENS))
        return context * self.full_bytes_per_token + window * self.window_bytes_per_token + sequences * self.state_bytes


def kv_cache_of(facts: ModelFacts) -> KvCache | None:
    """Return the cache of a model, or None when its metadata does not tell."""
    layers = facts.number("block_count")
    if layers is None or not 0 < layers <= _LAYERS_LIMIT:
        return None
    if facts.architecture == "deepseek4":
        cache = _deepseek4(facts, layers)
    else:
        cache = _cache(facts, layers, KV_RULES.get(facts.architecture, FULL))
    return cache if cache is not None and max(msgspec.structs.astuple(cache)) < _SANE_BYTES else None


def _cache(facts: ModelFacts, layers: int, rule: KvRule) -> KvCache | None:
    if not rule.cached:
        return KvCache(0)
    if rule.recurrent == "all":
        return KvCache(0, state_bytes=layers * _state_bytes(facts, 0))
    kv_heads, heads = _heads(facts, layers)
    if kv_heads is None:
        return None
    main = layers - min(facts.number("nextn_predict_layers") or 0, layers)
    recurrent = _recurrent(facts, rule, layers, main, kv_heads)
    attentive = _attentive(facts, rule, layers, main, kv_heads, recurrent)
    window_tokens, windowed = _windowed(facts, rule, layers, main, recurrent)
    sizes = _token_bytes(facts, kv_heads, heads, windowed)
    full = sum(size for size, here, short in zip(sizes, attentive, windowed, strict=True) if here and not short)
    short = sum(size for size, here, short in zip(sizes, attentive, windowed, strict=True) if here and short)
    full += _index_bytes(facts, rule, attentive, windowed) + _router_bytes(facts, rule, heads)
    loops = (facts.number("num_loops") or 1) if rule.looped else 1
    return KvCache(full * loops, short * loops, window_tokens if short else 0, _states(facts, rule, recurrent, heads))


def _heads(facts: ModelFacts, layers: int) -> tuple[list[int] | None, int]:
    """Return the KV heads of each layer, which are the heads unless the file says otherwise, and those of the first."""
    heads = facts.per_layer("attention.head_count", layers)
    return facts.per_layer("attention.head_count_kv", layers) or heads, heads[0] if heads else 0


def _head_sizes(facts: ModelFacts, heads: int) -> tuple[int, int]:
    """Return how many numbers a head has as key and as value; none when the file does not tell."""
    usual = (facts.number("embedding_length") or 0) // heads if heads else 0
    return (
        _first(facts.number("attention.key_length"), usual),
        _first(facts.number("attention.value_length"), usual),
    )


def _first(number: int | None, otherwise: int) -> int:
    return otherwise if number is None else number


def _token_bytes(facts: ModelFacts, kv_heads: Sequence[int], heads: int, windowed: Sequence[bool]) -> list[int]:
    """Return what one token takes in each layer. With multi-head latent attention, values are read from the keys."""
    key, value = _head_sizes(facts, heads)
    short_key = _first(facts.number("attention.key_length_swa"), key)
    short_value = _first(facts.number("attention.value_length_swa"), value)
    if _is_latent(facts):
        value = short_value = 0
    return [
        count * (short_key + short_value if short else key + value) * _F16_BYTES
        for count, short in zip(kv_heads, windowed, strict=False)
    ]


def _is_latent(facts: ModelFacts) -> bool:
    return bool(facts.number("attention.key_length_mla") and facts.number("attention.value_length_mla"))


def _recurrent(facts: ModelFacts, rule: KvRule, layers: int, main: int, kv_heads: Sequence[int]) -> list[bool]:
    match rule.recurrent:
        case "beside":
            return [True] * layers
        case "no-heads":
            return [not kv_heads[layer] for layer in range(layers)]
        case "no-heads-no-ffn":
            widths = facts.per_layer("feed_forward_length", layers) or [0] * layers
            return [layer < main and not kv_heads[layer] and not widths[layer] for layer in range(layers)]
        case "interval":
            named = facts.per_layer("attention.recurrent_layers", layers)
            interval = facts.number("full_attention_interval") or 4
            marks = named or [(layer + 1) % interval for layer in range(layers)]
            return [layer < main and bool(marks[layer]) for layer in range(layers)]
        case _:
            return [False] * layers


def _attentive(
    facts: ModelFacts, rule: KvRule, layers: int, main: int, kv_heads: Sequence[int], recurrent: Sequence[bool]
) -> list[bool]:
    """Tell for each layer whether it has a cache of its own."""
    last = layers if rule.draft_layers else main
    last = min(last, rule.cached_layers or last, layers - (facts.number("attention.shared_kv_layers") or 0))
    beside = rule.recurrent == "beside"
    widths = facts.per_layer("feed_forward_length", layers) if rule.recurrent == "no-heads-no-ffn" else None
    return [
        layer < last and kv_heads[layer] > 0 and (beside or not recurrent[layer]) and not (widths and widths[layer])
        for layer in range(layers)
    ]


def _windowed(
    facts: ModelFacts, rule: KvRule, layers: int, main: int, recurrent: Sequence[bool]
) -> tuple[int, list[bool]]:
    """Return the window, and for each layer whether it sees no more than that."""
    said = facts.number("attention.sliding_window")
    tokens = rule.window if said is None else said and (rule.forced_window or said)
    if not rule.windowed or not tokens or (rule.window_layers and main != rule.window_layers):
        return 0, [False] * layers
    named = facts.numbers("attention.sliding_window_pattern")
    if named is not None:
        marks = [bool(mark) for mark in named[:layers]]
        return tokens, marks + [False] * (layers - len(marks))
    pattern = _first(facts.number("attention.sliding_window_pattern"), rule.pattern or 0)
    if rule.pattern is None:
        return 0, [False] * layers
    dense = 0 if rule.dense_first else pattern - 1
    return tokens, [
        layer < main and not recurrent[layer] and (not pattern or layer % pattern != dense) for layer in range(layers)
    ]


def _index_bytes(facts: ModelFacts, rule: KvRule, attentive: Sequence[bool], windowed: Sequence[bool]) -> int:
    """Return what the keys of an indexer take for a token: one head in each layer that has an indexer."""
    size = facts.number("attention.indexer.key_length") or 0
    if rule.indexed == "no" or not size:
        return 0
    layers = len(attentive)
    pooled = facts.number("attention.indexer.kpool") or any(facts.numbers("attention.compress_ratios") or ())
    row = size * (rule.index_rows if pooled else 1)
    marks = [1] * layers
    if rule.indexed == "types":
        marks = facts.per_layer("attention.indexer.types", layers) or _usual_indexers(facts, layers)
    if rule.indexed == "sparse":
        dense = facts.number("leading_dense_block_count") or 0
        marks = [int(layer >= dense) for layer in range(layers)]
        row += _head_sizes(facts, _heads(facts, layers)[1])[1]  # not latent: llama-kv-cache-msa.cpp keeps values too
    count = sum(
        bool(mark) and here and not short for mark, here, short in zip(marks, attentive, windowed, strict=False)
    )
    return count * row * _F16_BYTES


def _usual_indexers(facts: ModelFacts, layers: int) -> list[int]:
    """Return which layers of a GLM have an indexer when the file does not say: all, or in long-context ones a few."""
    if facts.architecture != "glm-dsa" or (facts.number("context_length") or 0) < 2**20:
        return [1] * layers
    return [int(layer < 2 or layer % 4 == 2) for layer in range(layers)]  # noqa: PLR2004 (GLM_5_2_DEFAULT_INDEXER_TYPES)


def _router_bytes(facts: ModelFacts, rule: KvRule, heads: int) -> int:
    return sum(_head_sizes(facts, heads)) * _F16_BYTES if rule.router_layer else 0


def _states(facts: ModelFacts, rule: KvRule, recurrent: Sequence[bool], heads: int) -> int:
    return sum(recurrent) * _state_bytes(facts, heads) if rule.recurrent != "no" else 0


def _state_bytes(facts: ModelFacts, heads: int) -> int:
    """Return the state of one recurrent layer: what shifts (n_embd_r) and what is summed up (n_embd_s), in f32."""
    embedding = facts.number("embedding_length") or 0
    convolution = facts.number("ssm.conv_kernel") or 0
    inner, state = facts.number("ssm.inner_size") or 0, facts.number("ssm.state_size") or 0
    groups = facts.number("ssm.group_count") or 0
    shifted, summed = max(convolution - 1, 0) * (inner + 2 * groups * state), state * inner
    if facts.architecture == "minimax-01":
        summed = heads * _head_sizes(facts, heads)[0] ** 2
    if head := facts.number("kda.head_dim") or 0:
        shifted, summed = 3 * (convolution - 1 if convolution else 3) * heads * head, heads * head * head
    if length := facts.number("shortconv.l_cache") or 0:
        shifted = embedding * (length - 1)
    if head := facts.number("wkv.head_size") or 0:
        shifted, summed = _first(facts.number("token_shift_count"), 2) * embedding, embedding * head
    return (shifted + summed) * _F32_BYTES


def _deepseek4(facts: ModelFacts, layers: int) -> KvCache | None:
    """Return the cache of DeepSeek 4: raw keys of a window in all layers, compressed ones of the context in some."""
    kv_heads, heads = _heads(facts, layers)
    ratios = facts.numbers("attention.compress_ratios")
    if kv_heads is None or ratios is None:
        return None
    head = _head_sizes(facts, heads)[0]
    key, index = head * kv_heads[0], facts.number("attention.indexer.key_length") or 0
    short, long = ratios[:layers].count(_SHORT_DEEPSEEK4), ratios[:layers].count(_LONG_DEEPSEEK4)
    compressed = short * (key + index) / _SHORT_DEEPSEEK4 + long * key / _LONG_DEEPSEEK4
    states = short * 2 * _SHORT_DEEPSEEK4 * 2 * (head + index) + long * _LONG_DEEPSEEK4 * head
    return KvCache(
        math.ceil(compressed * _F16_BYTES),
        sum(kv_heads) * head * _F16_BYTES,
        facts.number("attention.sliding_window") or 0,
        2 * states * _F32_BYTES,
    )


def _rounded(tokens: int) -> int:
    return -(-tokens // _STEP_TOKENS) * _STEP_TOKENS
