"""What a run of `make` leaves behind, without one: records of steps, measurements, and an instance to work with."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.make.ledger import Evaluation
from llama_mgr.make.output import Place
from llama_mgr.make.provenance import BuildOrigin, InputRecord, Provenance, SourceRecord, record_of_made
from llama_mgr.make.workshop import Workshop, opened_workshop
from llama_mgr.models.side_car import RECORD_KIND, write_record
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.store import write_document
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import Remarks, put
from tests.tools.shelf_build import plan_of, publish_build

BUILD = BuildOrigin(instance="main", build_id="b7-cpu-0123abcd", version="b7", commit="7" * 40, digest="0123abcd" * 8)
SOURCE = SourceRecord(repo="owner/tiny", revision="5" * 40)
INPUT = InputRecord(name="tiny-F16.gguf", size_bytes=1000, sha256="f" * 64)


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def made_by(step: str = "quantize", digest: str = "d" * 64, **facts: Any) -> Provenance:  # noqa: ANN401 (any field)
    """How a file was made by `step`."""
    usual = {
        "build": BUILD, "command": [f"llama-{step}", "in", "out"], "inputs": [INPUT],
        "made_at": "2026-01-02T03:04:05Z", "made_by": "llama-mgr 0.0", "took_s": 1.5,
    }  # fmt: skip
    return Provenance(step=step, digest=digest, **{**usual, **facts})


def at(directory: Path, file_name: str = "") -> Place:
    """The place for files of `owner/tiny` in a directory of the user's."""
    return Place(directory, is_library=False, model="owner/tiny", file_name=file_name)


def put_made(path: Path, made: Provenance, content: bytes | None = None) -> Path:
    """Write a file with the side-car that its making leaves."""
    put(path, content)
    write_record(path, record_of_made(made, sha256_of(path), path.stat().st_size))
    return path


def pending_of(target: Path) -> Path:
    """Where the record of a file waits until the file has its name."""
    return target.with_name(f".{target.name}.json.new")


def put_pending(target: Path, made: Provenance, content: bytes) -> None:
    """Leave the record that a kill between the names of file and record leaves, of a file with this content."""
    record = record_of_made(made, hashlib.sha256(content).hexdigest(), len(content))
    write_document(pending_of(target), RECORD_KIND, record)


def measured(quant: str = "Q4_K_M", size_bytes: int = 100_000_000, **facts: Any) -> Evaluation:  # noqa: ANN401
    """What one build measured of one model; `facts` are fields of Evaluation."""
    usual: dict[str, Any] = {
        "model_sha256": hashlib.sha256(quant.encode()).hexdigest(), "model": f"owner/tiny:{quant}",
        "architecture": "llama", "bits_per_weight": 5.0, "build_id": BUILD.build_id, "build_digest": BUILD.digest,
        "text_sha256": "e" * 64, "text": "text.txt", "context_tokens": 512, "chunks": 0, "base_sha256": "f" * 64,
        "base": "owner/tiny:F16", "perplexity": 20.0, "perplexity_error": 0.5, "kld": 0.05, "kld_error": 0.001,
        "generation_tokens_per_s": 14.0, "measured_at": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    return Evaluation(quant=quant, size_bytes=size_bytes, **{**usual, **facts})


@contextmanager
def workshop_of(
    home: Home,
    environ: Mapping[str, str],
    reporter: Reporter | None = None,
    *,
    commit: str = "7" * 40,
    converter: Mapping[str, str] | None = None,
) -> Iterator[Workshop]:
    """Lend a new instance `main`, of a build without compiled programs; `converter` are the files of its converter."""
    plan = msgspec.structs.replace(plan_of(7), commit=commit)
    build = publish_build(home, plan, None if converter is None else "")
    for name, text in (converter or {}).items():
        file = home.builds_dir / build.build_id / "convert" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    instance = Instances(home).point("main", build, WantedBuild(version="b7"))
    with opened_workshop(home, instance, environ, reporter or Remarks()) as workshop:
        yield workshop


def model_of(quant: str = "Q4_K_M", seed: int = 0) -> bytes:
    """The bytes of a small model; other seeds give other weights and the same size."""
    return model_bytes(quant=quant, seed=seed)


OLD, NEW = made_by(digest="0" * 64, source=SOURCE), made_by(digest="1" * 64, source=SOURCE)
OLD_BYTES, NEW_BYTES = model_of(seed=1), model_of(seed=2)
"""What two runs of a step gave under one name, one after the other."""
