#!/usr/bin/env python3
"""Writes an empty GGUF file, with the flags that llama.cpp's converter had in August 2024."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a huggingface model to a GGML compatible file")
    parser.add_argument("--outfile", type=Path, help="path to write to")
    parser.add_argument("--outtype", type=str, choices=["f32", "f16", "bf16", "q8_0", "auto"], default="f16")
    parser.add_argument("--model-name", type=str, default=None, help="name of the model")
    parser.add_argument("model", type=Path, help="directory containing model file")
    args = parser.parse_args()
    (args.outfile or args.model / "model.gguf").write_bytes(b"GGUF\x03" + bytes(19))


if __name__ == "__main__":
    main()
