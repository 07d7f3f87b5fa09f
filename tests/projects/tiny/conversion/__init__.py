"""The part of the converter that lies beside the script, as in llama.cpp since May 2026."""

from __future__ import annotations

TEXT_MODEL_MAP: dict[str, str] = {
    "Gemma3ForCausalLM": "gemma",
    "Gemma3ForConditionalGeneration": "gemma",
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen",
}

MMPROJ_MODEL_MAP: dict[str, str] = {
    "Gemma3ForConditionalGeneration": "gemma",
}
