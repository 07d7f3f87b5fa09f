"""What a model can do, told from its metadata: data, and the rules that read it.

The words are those of Ollama's API (`capabilities` of /api/show), and `rerank`, which llama-server has an endpoint for.
"""

from collections.abc import Collection, Iterable

from llama_mgr.models.model_facts import ModelFacts

# Encoders of llama.cpp b11434: they have no way to write text.
_ENCODERS = frozenset(
    {
        "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
        "gemma-embedding", "llama-embed", "t5encoder",
    }
)  # fmt: skip

# llama-server does not answer with these alone: diffusion (llama-diffusion-cli), drafts, audio codecs, a router.
_SILENT = frozenset(
    {
        "dream", "llada", "llada-moe", "rnd1", "eagle3", "dflash", "gemma4-assistant", "wavtokenizer-dec", "pockettts",
        "qwen3tts", "clef",
    }
)  # fmt: skip

_POOLING_RANK = 4  # enum llama_pooling_type of include/llama.h: none 0, mean 1, cls 2, last 3, rank 4
_TOOL_WORDS = ("tools", "tool_call")
_THINKING_WORDS = (
    "</think>", "enable_thinking", "reasoning_content", "reasoning_effort", "[THINK]", "<|START_THINKING|>",
    "<seed:think>", "<|channel|>analysis", "<|channel>thought",
)  # fmt: skip
_FIM_KEYS = (
    ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.fim_suf_token_id"),
    ("tokenizer.ggml.prefix_token_id", "tokenizer.ggml.suffix_token_id"),  # files from before 2025
)
_SCANNED_CHARACTERS = 1024 * 1024


def capabilities_of(facts: ModelFacts, kind: str, templates: Iterable[str]) -> tuple[str, ...]:
    """Return what the model can do, in a fixed order.

    Args:
        facts: its metadata.
        kind: `model`, `mmproj`, …; anything else than these two can do nothing alone.
        templates: its chat templates, of which the first million characters count.
    """
    if kind == "mmproj":
        return _of_projector(facts)
    if kind != "model" or not facts.has("tokenizer.ggml.model") or facts.architecture in _SILENT:
        return ()
    pooling = facts.number("pooling_type") or 0
    if pooling == _POOLING_RANK:
        return ("rerank",)
    if pooling or facts.architecture in _ENCODERS:
        return ("embedding",)
    words = _words_in(templates, {*_TOOL_WORDS, *_THINKING_WORDS})
    found = {
        "completion": True,
        "vision": facts.has(f"{facts.architecture}.vision.block_count"),
        "audio": facts.has(f"{facts.architecture}.audio.block_count"),
        "tools": not words.isdisjoint(_TOOL_WORDS),
        "thinking": not words.isdisjoint(_THINKING_WORDS),
        "insert": any(all(facts.has(key) for key in keys) for keys in _FIM_KEYS),
    }
    return tuple(name for name, holds in found.items() if holds)


def _words_in(templates: Iterable[str], words: Collection[str]) -> set[str]:
    """Return which of `words` the templates have; they are looked at one by one, as they may be megabytes."""
    found: set[str] = set()
    left = _SCANNED_CHARACTERS
    for template in templates:
        scanned = template[:left]
        found |= {word for word in words if word in scanned}
        left -= len(scanned)
    return found


def _of_projector(facts: ModelFacts) -> tuple[str, ...]:
    """Return what a projector adds to its model: the keys are those of tools/mtmd/clip-impl.h."""
    hears = facts.is_true("clip.has_audio_encoder")
    sees = facts.is_true("clip.has_vision_encoder") or not hears  # the first ones only saw, and did not say so
    return ("vision",) * sees + ("audio",) * hears
