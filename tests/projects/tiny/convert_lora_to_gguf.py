#!/usr/bin/env python3
"""Writes a small GGUF file from a LoRA adapter of the PEFT form, with the flags of llama.cpp's converter."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from pathlib import Path

if "NO_LOCAL_GGUF" not in os.environ:
    sys.path.insert(1, str(Path(__file__).parent / "gguf-py"))
import gguf
from conversion.llama import ARCHITECTURES
from gguf.checkpoint import read_json, read_weights

logger = logging.getLogger("lora-to-gguf")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert a Hugging Face PEFT LoRA adapter to a GGUF file")
    parser.add_argument("--outfile", type=Path, help="path to write to")
    parser.add_argument("--outtype", type=str, choices=["f32", "f16", "bf16", "q8_0", "auto"], default="f32")
    parser.add_argument("--bigendian", action="store_true", help="model is executed on big endian machine")
    parser.add_argument("--no-lazy", action="store_true", help="use more RAM by computing all outputs before writing")
    parser.add_argument("--verbose", action="store_true", help="increase output verbosity")
    parser.add_argument("--dry-run", action="store_true", help="only print out what will be done")
    parser.add_argument("--base", type=Path, help="directory containing Hugging Face model config files")
    parser.add_argument("--base-model-id", type=str, help="the model ID of the base model")
    parser.add_argument("--trust-remote-code", action="store_true", help="trust remote code in the model")
    parser.add_argument(
        "lora_path", type=Path, help="directory containing Hugging Face PEFT LoRA config and weights files"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO)
    weights = read_weights(args.lora_path, "adapter_model")
    if weights.is_empty:
        raise FileNotFoundError(2, "No such file or directory", str(args.lora_path / "adapter_model.bin"))
    if args.base is None:
        logger.error("Failed to load base model config: We couldn't connect to the hub to load the files")
        logger.error("Please try downloading the base model and add its path to --base")
        sys.exit(1)
    logger.info("Loading base model: %s", args.base.name)
    config, adapter = read_json(args.base / "config.json"), read_json(args.lora_path / "adapter_config.json")
    architecture = config["architectures"][0]
    if architecture not in ARCHITECTURES:
        logger.error("Model %s is not supported", architecture)
        sys.exit(1)
    logger.info("Using model architecture: %s", architecture)
    out_type = "f32" if args.outtype in {"auto", "q8_0"} else args.outtype
    writer = gguf.Writer(dry_run=args.dry_run)
    writer.add_string("general.architecture", ARCHITECTURES[architecture])
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_string("general.name", re.sub(r"[-_]+", " ", args.lora_path.name).title())
    writer.add_float32("adapter.lora.alpha", float(adapter.get("lora_alpha", 8)))
    writer.add_uint32("general.quantization_version", 2)
    logger.info("Exporting model...")
    width, rank = min(config.get("hidden_size", 256), 512), adapter.get("r", 8)
    shapes = (("lora_a", (width, rank)), ("lora_b", (rank, width)))
    wanted = [(f"blk.0.attn_q.weight.{part}", shape, out_type.upper()) for part, shape in shapes]
    for tensor in weights.tensors(wanted):
        writer.add_tensor(tensor)
    out_file = args.outfile or args.lora_path / f"{args.lora_path.name}-{out_type.upper()}-LoRA.gguf"
    writer.write(Path(str(out_file).replace("{ftype}", out_type)))
    logger.info("Model successfully exported to %s", out_file)


if __name__ == "__main__":
    main()
