#!/usr/bin/env python3
"""Stands where llama.cpp has its LoRA converter; only the flags are there."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a Hugging Face PEFT LoRA adapter to a GGUF file")
    parser.add_argument("--outfile", type=Path, help="path to write to")
    parser.add_argument("--outtype", type=str, choices=["f32", "f16", "bf16", "q8_0", "auto"], default="f32")
    parser.add_argument("--base", type=Path, help="directory containing Hugging Face model config files")
    parser.add_argument(
        "lora_path", type=Path, help="directory containing Hugging Face PEFT LoRA config and weights files"
    )
    args = parser.parse_args()
    (args.outfile or args.lora_path / "lora.gguf").write_bytes(b"GGUF\x03" + bytes(19))


if __name__ == "__main__":
    main()
