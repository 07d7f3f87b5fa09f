"""The programs of the tiny project, built once in a run of tests, and small checkpoints for them."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from llama_mgr.models.gguf import GgufHeader, read_gguf
from llama_mgr.models.traits import Traits, traits_of
from tests.tools.tiny_build import TinyBuild
from tests.tools.tiny_repository import TINY_DIR

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "TINY_"))}
_TARGETS = ["llama-quantize", "llama-imatrix", "llama-perplexity", "llama-bench", "llama-gguf-split"]
_CONFIG = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}  # fmt: skip
_TEXT = "".join(f"{number * number % 1009} things lie on {number % 7} tables. " for number in range(700))

Done = subprocess.CompletedProcess[str]


class Tools:
    """The built programs, and the model that they start from."""

    def __init__(self, bin_dir: Path, place: Path) -> None:
        self.bin_dir = bin_dir
        self.f16 = place / "model-F16.gguf"
        self.text = place / "text.txt"
        self.text.write_text(_TEXT)
        self.checkpoint = write_checkpoint(place / "checkpoint")
        converted(self.checkpoint, self.f16)
        self.matrix = place / "model.imatrix.gguf"
        self.ran("imatrix", "-m", self.f16, "-f", self.text, "-o", self.matrix, "-c", 128)

    def __call__(self, tool: str, *words: object, **extra: str) -> Done:
        return run([self.bin_dir / f"llama-{tool}", *words], **extra)

    def ran(self, tool: str, *words: object, **extra: str) -> Done:
        done = self(tool, *words, **extra)
        assert done.returncode == 0, done.stderr
        return done

    def quantized(self, target: Path, *words: object, source: Path | None = None) -> Traits:
        *flags, kind = words
        self.ran("quantize", *flags, source or self.f16, target, kind)
        return traits_of(read_gguf(target), "any.gguf")


def run(argv: Sequence[object], **extra: str) -> Done:
    words = [str(word) for word in argv]
    # The programs cut metadata that they show anywhere, inside characters too, as upstream's do.
    return subprocess.run(
        words, env={**CLEAN, **extra}, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=60
    )


def convert(*words: object, script: str = "convert_hf_to_gguf.py", **extra: str) -> Done:
    return run([sys.executable, "-B", TINY_DIR / script, *words], **extra)


def converted(checkpoint: Path, target: Path, *words: object) -> GgufHeader:
    done = convert(checkpoint, "--outfile", target, *words)
    assert done.returncode == 0, done.stderr
    return read_gguf(target)


def write_checkpoint(directory: Path, *, seed: int = 1, dtype: str = "F32", **config: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(_CONFIG | config))
    entry = {"dtype": dtype, "shape": [4, 4], "data_offsets": [0, 64]}
    head = json.dumps({"model.embed_tokens.weight": entry}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes([seed]) * 64)
    return directory


def data_of(file: Path) -> bytes:
    """Return the tensors of a file."""
    return file.read_bytes()[read_gguf(file).data_offset :]


@cache
def built_tools(base: Path) -> Tools:
    """Return the programs, built below `base` by whoever asks first."""
    place = base / "tiny-tools"
    tiny = TinyBuild(place / "build", TINY_DIR)
    tiny.made(_TARGETS, {"LLAMA_BUILD_COMMIT": "abc1234"})
    return Tools(tiny.build_dir / "bin", place)
