"""Hostile repositories: none is converted, and nothing of any of them runs while that is found out."""

import subprocess
import sys
from pathlib import Path

import pytest

from llama_mgr.errors import BadCheckpointError, UnsafeCheckpointError
from llama_mgr.make.checkpoint_dir import inspect_checkpoint, stage_checkpoint
from tests.tools.checkpoints import CANARIES

# What each brings itself that runs; the others name code of somebody else's repository.
LIVE = {
    "config-auto-map": "modeling_thing.py",
    "tokenizer-auto-map": "tokenization_thing.py",
    "code-below": "custom_generate/generate.py",
    "only-pickles": "pytorch_model.bin",
    "renamed-pickle": "model.safetensors",
    "compiled-code": "sentencepiece.pyc",
    "linked-code": "numpy.py",
    "pickled-adapter": "adapter_model.bin",
}
RUN = """
import pickle, runpy, sys
if sys.argv[1].endswith((".py", ".pyc")):
    runpy.run_path(sys.argv[1])
else:
    pickle.load(open(sys.argv[1], "rb"))
"""


@pytest.mark.parametrize("name", CANARIES)
def test_a_hostile_repository_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    directory, marker = tmp_path / "repository", tmp_path / "marker"
    CANARIES[name](directory, marker)
    with pytest.raises((UnsafeCheckpointError, BadCheckpointError)) as caught:
        inspect_checkpoint(directory)
    assert caught.value.exit_status == (5 if name == "renamed-pickle" else 11)
    if name != "renamed-pickle":
        assert "--trust-remote-code" in str(caught.value.hint)
    assert not marker.exists()


@pytest.mark.parametrize("name", sorted(CANARIES.keys() - {"renamed-pickle"}))
def test_it_is_the_canary_that_is_refused_and_looking_with_trust_runs_nothing(tmp_path: Path, name: str) -> None:
    directory, marker = tmp_path / "repository", tmp_path / "marker"
    CANARIES[name](directory, marker)
    found = inspect_checkpoint(directory, trust_remote_code=True)
    assert found.has_code
    stage_checkpoint(found, tmp_path / "staged", trust_remote_code=True)
    assert not marker.exists()


@pytest.mark.parametrize("name", LIVE)
def test_the_canaries_are_alive(tmp_path: Path, name: str) -> None:
    directory, marker = tmp_path / "repository", tmp_path / "marker"
    CANARIES[name](directory, marker)
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", RUN, str(directory / LIVE[name])], check=True, timeout=60)
    assert marker.exists()
