#!/usr/bin/env python3
"""Writes a small GGUF file from a folder with a config.json, with the flags of llama.cpp's converter."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

if "NO_LOCAL_GGUF" not in os.environ:
    sys.path.insert(1, str(Path(__file__).parent / "gguf-py"))
import gguf
from conversion import TEXT_MODEL_MAP

logger = logging.getLogger("hf-to-gguf")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert a huggingface model to a GGML compatible file")
    parser.add_argument("--vocab-only", action="store_true", help="extract only the vocab")
    parser.add_argument(
        "--outfile",
        type=Path,
        help="path to write to; default: based on input. {ftype} will be replaced by the outtype.",
    )
    parser.add_argument(
        "--outtype",
        type=str,
        choices=["f32", "f16", "bf16", "q8_0", "tq1_0", "tq2_0", "auto"],
        default="auto",
        help="output format",
    )
    parser.add_argument("--bigendian", action="store_true", help="model is executed on big endian machine")
    parser.add_argument("model", type=str, help="directory containing model file", nargs="?")
    parser.add_argument("--use-temp-file", action="store_true", help="use the tempfile library while processing")
    parser.add_argument("--no-lazy", action="store_true", help="use more RAM by computing all outputs before writing")
    parser.add_argument("--model-name", type=str, default=None, help="name of the model")
    parser.add_argument("--verbose", action="store_true", help="increase output verbosity")
    parser.add_argument("--split-max-tensors", type=int, default=0, help="max tensors in each split")
    parser.add_argument("--split-max-size", type=str, default="0", help="max size per split N(M|G)")
    parser.add_argument("--dry-run", action="store_true", help="only print out a split plan and exit")
    parser.add_argument("--no-tensor-first-split", action="store_true", help="do not add tensors to the first split")
    parser.add_argument("--metadata", type=Path, help="path of an authorship metadata override file")
    parser.add_argument("--print-supported-models", action="store_true", help="Print the supported models")
    parser.add_argument("--remote", action="store_true", help="read safetensors file remotely")
    parser.add_argument("--mmproj", action="store_true", help="export multimodal projector")
    args = parser.parse_args()
    if not args.print_supported_models and args.model is None:
        parser.error("the following arguments are required: model")
    return args


def main() -> None:
    args = parse_args()
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO, format="%(levelname)s:%(name)s:%(message)s"
    )
    if args.print_supported_models:
        logger.error("Supported models:")
        for name in sorted(TEXT_MODEL_MAP):
            logger.error("- %s", name)
        return
    model_dir = Path(args.model)
    if not model_dir.is_dir():
        logger.error("Error: %s is not a directory", args.model)
        sys.exit(1)
    architecture = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    logger.info("Loading model: %s", model_dir.name)
    logger.info("Model architecture: %s", architecture)
    if architecture not in TEXT_MODEL_MAP:
        logger.error("Model %s is not supported", architecture)
        sys.exit(1)
    out_type = "f16" if args.outtype == "auto" else args.outtype
    out_file = args.outfile or model_dir / f"{model_dir.name}-{out_type.upper()}.gguf"
    out_file = Path(str(out_file).replace("{ftype}", out_type).replace("{FTYPE}", out_type.upper()))
    if not args.dry_run:
        gguf.write_model(
            out_file,
            name=args.model_name or model_dir.name,
            architecture=TEXT_MODEL_MAP[architecture],
            file_type=gguf.FILE_TYPES[args.outtype],
        )
    logger.info("Model successfully exported to %s", out_file)


if __name__ == "__main__":
    main()
