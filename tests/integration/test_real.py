"""Real llama.cpp: two versions from a local git repository of their trees, answering with a real model."""

import json
import subprocess
from pathlib import Path

import pytest

from llama_mgr.paths import HOME_VARIABLE
from tests.conftest import Cli
from tests.integration.conftest import NEW, OLD

pytestmark = [pytest.mark.real, pytest.mark.timeout(2400)]


def record_of(cli: Cli, name: str) -> dict[str, object]:
    path = Path(cli.environ[HOME_VARIABLE]) / "instances" / name / "current" / "build.json"
    record: dict[str, object] = json.loads(path.read_text())
    return record


def test_each_says_its_own_build_number(real_cli: Cli) -> None:
    for name, number in (("old", OLD), ("new", NEW)):
        said = real_cli.done("exec", "-i", name, "llama-server", "--", "--version").stderr
        assert f"(build {number}, commit " in said


def test_the_second_reused_objects_of_the_first(real_cli: Cli) -> None:
    record = record_of(real_cli, "new")
    assert int(str(record["cache_hits"])) > 50


def test_the_same_plan_compiles_nothing(real_cli: Cli) -> None:
    report = real_cli.json("install", "again", f"b{NEW}", "--arch", "cpu", "--ignore-python")
    assert (report["action"], report["compiler_runs"]) == ("reused", 0)


@pytest.mark.parametrize("name", ["old", "new"])
def test_it_answers_a_chat_request(real_cli: Cli, name: str) -> None:
    real_cli.done("use", name)
    answer = real_cli.json("quickstart", "--stop-after", timeout_s=600)
    assert answer["instance"] == name
    assert "Paris" in answer["answer"]
    assert answer["tokens_per_second"] > 0


def test_the_capabilities_are_the_real_ones(real_cli: Cli) -> None:
    capabilities = json.dumps(record_of(real_cli, "new")["capabilities"])
    for word in ("--ctx-size", "--load-mode", "Q4_K_M", "IQ4_XS", "LlamaForCausalLM", "qwen3", "--outtype"):
        assert word in capabilities


def test_nothing_in_it_points_outside(real_cli: Cli) -> None:
    bin_dir = Path(real_cli.environ[HOME_VARIABLE]) / "instances" / "new" / "current" / "bin"
    for program in bin_dir.iterdir():
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, env={}).stdout
        assert "not found" not in said
        assert "staging" not in said


def test_the_converter_has_an_environment(real_cli: Cli) -> None:
    answer = real_cli.done("install", "new", f"b{NEW}", "--arch", "cpu", "--json", timeout_s=900)
    environment = json.loads(answer.stdout)["converter_environment"]
    if environment is None and "cannot find a CPU build of torch" in answer.stderr:
        pytest.skip("neither torch's CPU index can be reached, nor does UV_FIND_LINKS name a folder with its wheel")
    assert environment is not None, answer.stderr
    installed = [path.name for path in Path(environment).glob("lib/python*/site-packages/*.dist-info")]
    assert not [name for name in installed if name.startswith("nvidia")]
    script = (
        Path(real_cli.environ[HOME_VARIABLE]) / "instances" / "new" / "current" / "convert" / "convert_hf_to_gguf.py"
    )
    said = subprocess.run(
        [Path(environment) / "bin" / "python", script, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    assert "--outtype" in said
