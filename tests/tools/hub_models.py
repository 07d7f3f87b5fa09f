"""What repositories of models hold, in small: quants, shards, projectors, checkpoints."""

import json
from pathlib import Path

from llama_mgr.models.hub import Hub, HubFile
from llama_mgr.partial import held_partial
from llama_mgr.report import SilentReporter
from tests.tools.gguf_file import TensorInfo, gguf_bytes, model_bytes
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_repo import LocalFile

OWNER_REPO = "owner/tiny-GGUF"


def quants(*tags: str, **more: object) -> dict[str, bytes]:
    """Return whole models of these quants."""
    return {f"tiny-{tag}.gguf": model_bytes(quant=tag, **more) for tag in tags}  # type: ignore[arg-type]


def shards(count: int, tag: str = "Q4_K_M", **more: object) -> dict[str, bytes]:
    """Return one model in `count` shards."""
    return {
        f"tiny-{tag}-{number + 1:05}-of-{count:05}.gguf": model_bytes(quant=tag, split=(number, count), **more)  # type: ignore[arg-type]
        for number in range(count)
    }


def projector(name: str = "mmproj-F16.gguf", seed: int = 0) -> dict[str, bytes]:
    """Return a projector."""
    metadata = {"general.architecture": "clip", "general.type": "mmproj", "clip.has_vision_encoder": True}
    return {name: gguf_bytes(metadata, [TensorInfo("v.patch_embd.weight", (64, 64), "F16")], seed=seed)}


def checkpoint(weights: bytes = b"weights" * 1000) -> dict[str, bytes]:
    """Return what a repository of a transformers model has, in small."""
    return {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": weights,
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"onnx",
        "handler.py": b"raise SystemExit",
    }


def claim_size(hub: LocalHub, repo: str, name: str, size_bytes: int, place: Path) -> None:
    """Let the hub list a file with this size; it cannot be fetched."""
    big = LocalFile(name, place)
    big.__dict__.update(size_bytes=size_bytes, sha256="a" * 64, git_sha1="b" * 40)
    (files,) = hub.repos[repo].commits.values()
    files[name] = big


def fetched(hub: Hub, file: HubFile, target: Path) -> Path:
    """Fetch one file of a hub as a pull does it, and return `target`."""
    with (
        held_partial(target, file.sha256 or file.git_sha1) as partial,
        SilentReporter().progress("", None, "bytes") as progress,
    ):
        hub.fill(file, partial, progress)
        partial.publish()
    return target
