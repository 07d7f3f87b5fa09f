"""What the converter's last words mean, and who could do better."""

from pathlib import Path

import msgspec
import pytest

from llama_mgr.build.capability import Capabilities
from llama_mgr.build.record import RECORD_NAME, Builds
from llama_mgr.errors import ConvertFailedError, UnsupportedArchitectureError
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.make.convert_failure import raise_failure
from llama_mgr.make.tool import ToolRun
from llama_mgr.paths import Home
from llama_mgr.store import write_document
from tests.tools.shelf_build import plan_of, publish_build


def ended(*lines: str) -> ToolRun:
    return ToolRun(("convert",), 1, 1.0, 0, lines, Path("/log"))


def add_instance(home: Home, name: str, number: int, *architectures: str) -> str:
    build = publish_build(home, plan_of(number), requirements="")
    known = Capabilities(converter_architectures=list(architectures), has_converter=True)
    record = msgspec.structs.replace(build, capabilities=known)
    write_document(Builds(home).directory(build.build_id) / RECORD_NAME, "build", record)
    Instances(home).point(name, record, WantedBuild(version=f"b{number}"))
    return build.build_id


def test_the_newest_instance_that_knows_the_architecture_is_named(home: Home) -> None:
    build_id = add_instance(home, "old", 1, "LlamaForCausalLM")
    for name, number in (("newer", 2), ("newest", 3)):
        add_instance(home, name, number, "LlamaForCausalLM", "NewForCausalLM")
    add_instance(home, "other", 4, "LlamaForCausalLM")
    said = ended("ERROR:hf-to-gguf:Model NewForCausalLM is not supported")
    with pytest.raises(UnsupportedArchitectureError, match="does not know the architecture NewForCausalLM") as raised:
        raise_failure(home, said, "my-model", ["NewForCausalLM"], build_id)
    assert raised.value.hint is not None
    assert "-i newest" in raised.value.hint
    assert raised.value.tail == list(said.tail)


def test_nobody_knows_it(home: Home) -> None:
    build_id = add_instance(home, "old", 1, "LlamaForCausalLM")
    with pytest.raises(UnsupportedArchitectureError) as raised:
        raise_failure(home, ended("Model X is not supported"), "my-model", ["X"], build_id)
    assert "install latest" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("NotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()", "tokenizer"),
        ("ValueError: Can not map tensor 'model.odd.weight'", "model.odd.weight"),
        ("ModuleNotFoundError: No module named 'mistral_common'", "mistral_common"),
        ("MemoryError", "memory"),
        ("Segmentation fault", "status 1"),
    ],
)
def test_known_words_have_a_meaning(home: Home, line: str, why: str) -> None:
    with pytest.raises(ConvertFailedError, match=why):
        raise_failure(home, ended("Traceback", line), "my-model", [], "b1-cpu-00000000")
