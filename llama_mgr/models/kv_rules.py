"""Which memory each architecture of llama.cpp has: data, read from b11434.

`create_memory` of src/llama-model.cpp chooses the kind; `load_arch_hparams` of src/models/<architecture>.cpp says which
layers look at a window only, and which are recurrent. An architecture that is not here caches every layer in full.
"""

from typing import Literal

import msgspec

Recurrent = Literal["no", "all", "no-heads", "no-heads-no-ffn", "interval", "beside"]
"""Which layers have a state: none; all; those without KV heads; those without feed-forward network too; all but every
n-th; all, beside their cache."""

EVERY = 0  # as a pattern: all layers look at the window
BY_ARRAY = None  # only the file says which


class KvRule(msgspec.Struct, frozen=True, kw_only=True):
    """How one architecture departs from a full cache of all layers."""

    cached: bool = True
    """Whether it has a cache at all: encoders and diffusion models have none."""
    recurrent: Recurrent = "no"
    windowed: bool = False
    """Whether `attention.sliding_window` counts."""
    window: int = 0
    """The window of a file that does not say."""
    forced_window: int = 0
    """What replaces the window of a file that has one."""
    pattern: int | None = EVERY
    """Every n-th layer sees the whole context, unless the file has a pattern."""
    dense_first: bool = False
    """Whether that is the first of the n, not the last."""
    window_layers: int = 0
    """Only a model with so many layers has windows."""
    cached_layers: int = 0
    """Only so many layers at the start have a cache; the others read theirs."""
    looped: bool = False
    """Whether the layers run `num_loops` times, with a cache each time."""
    indexed: Literal["no", "all", "types", "sparse"] = "no"
    """Which layers cache keys of an indexer too: none; all; those that the file names; those behind the dense ones."""
    index_rows: int = 1
    """How many rows the indexer keeps for a token."""
    draft_layers: bool = False
    """Whether layers for multi-token prediction are in the cache as well."""
    router_layer: bool = False
    """Whether there is one more layer with a single head."""


_NO_CACHE = KvRule(cached=False)
_BY_HEADS = KvRule(recurrent="no-heads", draft_layers=True)
_BY_INTERVAL = KvRule(recurrent="interval")
_RECURRENT = KvRule(recurrent="all")
_WINDOW_BY_ARRAY = KvRule(windowed=True, pattern=BY_ARRAY)


def _window(pattern: int, *, window: int = 0, dense_first: bool = False) -> KvRule:
    return KvRule(windowed=True, pattern=pattern, window=window, dense_first=dense_first)


KV_RULES: dict[str, KvRule] = {
    **dict.fromkeys(
        (
            "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert",
            "wavtokenizer-dec", "modern-bert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1", "clef",
            "gemma4-assistant",  # shares the cache of the model that it drafts for
        ),
        _NO_CACHE,
    ),
    **dict.fromkeys(("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"), _RECURRENT),
    **dict.fromkeys(
        ("jamba", "plamo2", "granitehybrid", "lfm2moe", "kimi-linear", "kimi-k3", "bailingmoe3"), _BY_HEADS
    ),
    "lfm2": KvRule(recurrent="no-heads", windowed=True, draft_layers=True),
    "falcon-h1": KvRule(recurrent="beside", draft_layers=True),
    **dict.fromkeys(("nemotron_h", "nemotron_h_moe"), KvRule(recurrent="no-heads-no-ffn", draft_layers=True)),
    **dict.fromkeys(("qwen3next", "qwen35", "qwen35moe"), _BY_INTERVAL),
    "minimax-01": KvRule(recurrent="interval"),
    "qwen4exp": KvRule(recurrent="interval", indexed="all", index_rows=2),
    "glm5-next": KvRule(recurrent="no-heads", indexed="types", index_rows=3),
    "afmoe": _window(4), "cohere2": _window(4), "cohere2moe": _window(4, dense_first=True),
    "exaone-moe": _window(4, window=128),
    "exaone4": KvRule(windowed=True, pattern=4, window=4096, window_layers=64),
    "gemma2": _window(2, window=4096), "gemma3": _window(6),
    "gemma3n": KvRule(windowed=True, pattern=5, cached_layers=20),
    "laguna": _window(4, dense_first=True),
    "llama4": KvRule(windowed=True, pattern=4, window=8192, forced_window=8192),
    "mellum": _window(4), "muse-glimmer": _window(4), "olmo2": _window(4), "gpt-oss": _window(2),
    "plamo3": _window(8),
    "smallthinker": KvRule(windowed=True, pattern=4, forced_window=4096, dense_first=True),
    **dict.fromkeys(("gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"), _WINDOW_BY_ARRAY),
    "nanbeige": KvRule(looped=True), "graniteswitch": KvRule(router_layer=True),
    "deepseek32": KvRule(indexed="all"), "glm-dsa": KvRule(indexed="types"),
    "hy_v4": KvRule(indexed="types", draft_layers=True),
    "minimax-m3": KvRule(indexed="sparse", draft_layers=True),
    "dots3note": KvRule(windowed=True, pattern=BY_ARRAY, indexed="types"),
}  # fmt: skip
"""`general.architecture` to its rule. `deepseek4` has a function of its own in kv_cache.py."""

FULL = KvRule()
