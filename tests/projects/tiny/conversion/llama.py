"""The architectures that the llama converter takes."""

from __future__ import annotations

ARCHITECTURE = "llama"
