#!/usr/bin/env python3
"""Writes a small GGUF file from a checkpoint: keys from its config, weights made of the bytes of its weights."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

if "NO_LOCAL_GGUF" not in os.environ:
    sys.path.insert(1, str(Path(__file__).parent / "gguf-py"))
import gguf
from conversion import MMPROJ_MODEL_MAP, TEXT_MODEL_MAP
from conversion.llama import ARCHITECTURES
from gguf.checkpoint import Weights, license_of, read_json, read_weights

logger = logging.getLogger("hf-to-gguf")

_MAX_WIDTH, _MAX_LAYERS, _MAX_VOCABULARY = 512, 8, 512
_OVERRIDES = (
    "name", "author", "version", "organization", "finetune", "basename", "description", "quantized_by", "size_label",
    "license.name", "license.link", "url", "doi", "uuid", "repo_url",
)  # fmt: skip


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
    parser.add_argument("--mistral-format", action="store_true", help="the model is stored in the Mistral format")
    args = parser.parse_args()
    if not args.print_supported_models and args.model is None:
        parser.error("the following arguments are required: model")
    return args


def split_str_to_n_bytes(text: str) -> int:
    units = {"K": 1000, "M": 1000**2, "G": 1000**3}
    if text[-1:] in units:
        return int(text[:-1]) * units[text[-1]]
    if text.isnumeric():
        return int(text)
    message = f"Invalid split size: {text}, must be a number, optionally followed by K, M, or G"
    raise ValueError(message)


class Model:
    """One checkpoint on its way to a file."""

    def __init__(self, args: argparse.Namespace, directory: Path, config: dict[str, Any], architecture: str) -> None:
        self.args, self.directory, self.config = args, directory, config
        self.text = {**config, **config.get("text_config", {})}
        self.arch = "clip" if args.mmproj else ARCHITECTURES[architecture]
        self.weights = read_weights(directory, "consolidated" if args.mistral_format else "model")
        self.out_type = _chosen_type(args.outtype, self.weights)
        self.writer = gguf.Writer(
            max_bytes=split_str_to_n_bytes(args.split_max_size), max_tensors=args.split_max_tensors,
            empty_first=args.no_tensor_first_split, dry_run=args.dry_run,
        )  # fmt: skip
        self.heads = self.number("num_attention_heads", 4)
        self.kv_heads = self.number("num_key_value_heads", self.heads)
        self.width = self.number("hidden_size", 256)
        self.tokens = _tokens(directory, self.text)

    def number(self, key: str, otherwise: int) -> int:
        """Return a number of the config of the text model."""
        found = self.text.get(key)
        return found if isinstance(found, int) else otherwise

    # -- tensors ---------------------------------------------------------------------------------------------------

    def add_tensors(self) -> None:
        wanted = [] if self.weights.is_empty or self.args.vocab_only else self._wanted()
        for tensor in self.weights.tensors(wanted):
            shape = ", ".join(map(str, tensor.shape))
            source = {"BF16": "bfloat16", "F16": "float16"}.get(self.weights.kind, "float32")
            logger.info("%-27s torch.%s --> %s, shape = {%s}", f"{tensor.name},", source, tensor.kind, shape)
            self.writer.add_tensor(tensor)

    def _wanted(self) -> list[tuple[str, tuple[int, ...], str]]:
        shapes = self._projector_shapes() if self.args.mmproj else self._text_shapes()
        return [(f"{name}.weight", shape, self._kind(name, shape)) for name, shape in shapes.items()]

    def _text_shapes(self) -> dict[str, tuple[int, ...]]:
        width, rows = min(self.width, _MAX_WIDTH), min(len(self.tokens), _MAX_VOCABULARY)
        inner = min(self.number("intermediate_size", width), _MAX_WIDTH)
        kv_width = max(width * self.kv_heads // max(self.heads, 1), 1)
        shapes: dict[str, tuple[int, ...]] = {} if self.text.get("tie_word_embeddings") else {"output": (width, rows)}
        shapes["token_embd"] = (width, rows)
        for layer in range(min(self.number("num_hidden_layers", 2), _MAX_LAYERS)):
            parts = {
                "attn_norm": (width,), "ffn_down": (inner, width), "ffn_gate": (width, inner), "ffn_up": (width, inner),
                "ffn_norm": (width,), "attn_k": (width, kv_width), "attn_output": (width, width),
                "attn_q": (width, width), "attn_v": (width, kv_width),
            }  # fmt: skip
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in parts.items()}
        return {**shapes, "output_norm": (width,)}

    def _projector_shapes(self) -> dict[str, tuple[int, ...]]:
        width, out = min(self.config["vision_config"].get("hidden_size", 256), _MAX_WIDTH), min(self.width, _MAX_WIDTH)
        parts = {"attn_q": (width, width), "ffn_up": (width, width), "ln1": (width,)}
        layer = {f"v.blk.0.{name}": shape for name, shape in parts.items()}
        return {"v.patch_embd": (14, 14, 3, width), **layer, "v.post_ln": (width,), "mm.0": (width, out)}

    def _kind(self, name: str, shape: tuple[int, ...]) -> str:
        kind = self.out_type.upper()
        _, block, _ = gguf.TENSOR_TYPES[kind]
        if len(shape) == 1 or name == "v.patch_embd":
            return "F32"
        is_left = kind.startswith("TQ") and name in {"token_embd", "output"}
        return "F16" if is_left or shape[0] % block else kind

    # -- keys ------------------------------------------------------------------------------------------------------

    def add_keys(self) -> None:
        writer = self.writer
        writer.add_string("general.architecture", self.arch)
        writer.add_string("general.type", "mmproj" if self.args.mmproj else "model")
        logger.info("Set meta model")
        self._add_authorship()
        logger.info("Set model parameters")
        if self.args.mmproj:
            self._add_projector()
        else:
            self._add_sizes()
            logger.info("Set model tokenizer")
            self._add_tokenizer()
        logger.info("gguf: file type = %d", gguf.FILE_TYPES[self.out_type])
        logger.info("Set model quantization version")
        writer.add_uint32("general.quantization_version", 2)
        writer.add_uint32("general.file_type", gguf.FILE_TYPES[self.out_type])

    def _add_authorship(self) -> None:
        override = read_json(self.args.metadata) if self.args.metadata else {}
        values = {
            "name": _title(self.directory.name),
            "license": license_of(self.directory),
            "size_label": self._size_label(),
        }
        values |= {key: override[f"general.{key}"] for key in _OVERRIDES if f"general.{key}" in override}
        if self.args.model_name is not None:
            values["name"] = self.args.model_name
        for key, value in values.items():
            if value:
                self.writer.add_string(f"general.{key}", str(value))
        for key in ("tags", "languages"):
            if override.get(f"general.{key}"):
                self.writer.add_strings(f"general.{key}", override[f"general.{key}"])

    def _size_label(self) -> str:
        count = sum(_count(tensor.shape) for shard in self.writer.shards for tensor in shard)
        scaled, unit = next(
            ((count / size, unit) for size, unit in ((1e9, "B"), (1e6, "M")) if count > size), (count / 1e3, "K")
        )
        digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
        return f"{scaled:.{digits}f}{unit}" if count else ""

    def _add_sizes(self) -> None:
        head = max(self.width // max(self.heads, 1), 1)
        sizes = {
            "block_count": self.number("num_hidden_layers", 2),
            "context_length": self.number("max_position_embeddings", 2048),
            "embedding_length": self.width,
            "feed_forward_length": self.number("intermediate_size", self.width),
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": head,
            "attention.value_length": head,
            "vocab_size": len(self.tokens),
            "rope.dimension_count": head,
        }
        for key, value in sizes.items():
            self.writer.add_uint32(f"{self.arch}.{key}", value)
        self.writer.add_float32(f"{self.arch}.attention.layer_norm_rms_epsilon", 1e-5)
        logger.info("gguf: context length = %d", sizes["context_length"])
        logger.info("gguf: embedding length = %d", self.width)

    def _add_projector(self) -> None:
        vision = self.config["vision_config"]
        self.writer.add_bool("clip.has_vision_encoder", value=True)
        self.writer.add_string("clip.projector_type", "gemma3")
        self.writer.add_uint32("clip.vision.image_size", vision.get("image_size", 224))
        self.writer.add_uint32("clip.vision.patch_size", vision.get("patch_size", 14))
        self.writer.add_uint32("clip.vision.embedding_length", vision.get("hidden_size", 256))
        self.writer.add_uint32("clip.vision.block_count", 1)
        self.writer.add_uint32("clip.vision.projection_dim", self.width)

    def _add_tokenizer(self) -> None:
        config = read_json(self.directory / "tokenizer_config.json")
        self.writer.add_string("tokenizer.ggml.model", "llama")
        self.writer.add_string("tokenizer.ggml.pre", "default")
        self.writer.add_strings("tokenizer.ggml.tokens", self.tokens)
        self.writer.add_float32s("tokenizer.ggml.scores", [-1000.0] * len(self.tokens))
        self.writer.add_int32s("tokenizer.ggml.token_type", [_token_type(one) for one in self.tokens])
        for key, text in {"bos": "<s>", "eos": "</s>", "unknown": "<unk>"}.items():
            if text in self.tokens:
                self.writer.add_uint32(f"tokenizer.ggml.{key}_token_id", self.tokens.index(text))
        jinja = self.directory / "chat_template.jinja"
        template = jinja.read_text(encoding="utf-8") if jinja.is_file() else config.get("chat_template")
        if isinstance(template, str):
            self.writer.add_string("tokenizer.chat_template", template)

    def out_file(self) -> Path:
        """Return where the file goes."""
        prefix = "mmproj-" if self.args.mmproj else ""
        found = self.args.outfile or self.directory
        if found.is_dir():
            return found / f"{prefix}{self.directory.name}-{self.out_type.upper()}.gguf"
        name = found.name.replace("{ftype}", self.out_type).replace("{FTYPE}", self.out_type.upper())
        return found.with_name(name)


def _chosen_type(out_type: str, weights: Weights) -> str:
    if out_type != "auto":
        return out_type
    found = {"BF16": ("bf16", "bfloat16"), "F16": ("f16", "float16")}.get(weights.kind)
    if found is None:
        logger.info("heuristics unable to detect tensor dtype, defaulting to --outtype f16")
        return "f16"
    logger.info("heuristics detected %s tensor dtype, setting --outtype %s", found[1], found[0])
    return found[0]


def _tokens(directory: Path, config: dict[str, Any]) -> list[str]:
    vocabulary = read_json(directory / "tokenizer.json").get("model", {}).get("vocab")
    if isinstance(vocabulary, dict):
        found = sorted(vocabulary, key=vocabulary.__getitem__)
    elif isinstance(vocabulary, list):
        found = [entry[0] for entry in vocabulary]
    else:
        found = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    size = config.get("vocab_size")
    wanted = size if isinstance(size, int) and not isinstance(vocabulary, list | dict) else len(found)
    return [*found, *(f"[PAD{number}]" for number in range(len(found), wanted))]


def _token_type(token: str) -> int:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return 6
    return 3 if re.fullmatch(r"</?\w+>", token) else 1


def _title(name: str) -> str:
    words = name.replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not re.match(r"v?\d", word) else word for word in words)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _architecture(config: dict[str, Any], *, mmproj: bool) -> str:
    part = config.get("vision_config" if mmproj else "text_config", {}).get("architectures")
    found = part or config.get("architectures")
    if not found:
        message = "Failed to detect model architecture"
        raise ValueError(message)
    return str(found[0])


def _print_supported() -> None:
    logger.error("Supported models:")
    for title, names in (("TEXT", TEXT_MODEL_MAP), ("MMPROJ", MMPROJ_MODEL_MAP)):
        logger.error("%s models:", title)
        for name in sorted(names):
            logger.error("  - %s", name)


def main() -> None:
    args = parse_args()
    if args.print_supported_models:
        _print_supported()
        return
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO)
    directory = Path(args.model)
    if not directory.is_dir():
        logger.error("Error: %s is not a directory", args.model)
        sys.exit(1)
    logger.info("Loading model: %s", directory.name)
    if not (directory / "config.json").is_file():
        raise FileNotFoundError(2, "No such file or directory", str(directory / "config.json"))
    config = read_json(directory / "config.json")
    architecture = _architecture(config, mmproj=args.mmproj)
    logger.info("Model architecture: %s", architecture)
    if architecture not in (MMPROJ_MODEL_MAP if args.mmproj else TEXT_MODEL_MAP):
        logger.error("Model %s is not supported", architecture)
        sys.exit(1)
    if args.mmproj and "vision_config" not in config:
        message = "vision_config / audio_config not found in hparams"
        raise ValueError(message)
    model = Model(args, directory, config, architecture)
    logger.info("Exporting model...")
    model.add_tensors()
    model.add_keys()
    out_file = model.out_file()
    model.writer.write(out_file)
    is_split = args.split_max_tensors > 0 or args.split_max_size != "0"
    logger.info("Model successfully exported to %s", f"{out_file.parent}{os.sep}" if is_split else out_file)


if __name__ == "__main__":
    main()
