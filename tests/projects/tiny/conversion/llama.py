"""What the converter writes as `general.architecture`: of all models, for this stand-in has one module."""

from __future__ import annotations

ARCHITECTURES = {
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
}
