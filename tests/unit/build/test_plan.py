"""What of a plan decides its digest, and the name of its build."""

import msgspec
import pytest

from llama_mgr.build.plan import Plan
from llama_mgr.build.source import short_commit
from llama_mgr.names import is_name

PLAN = Plan(
    version="b11434", build_number=11434, commit="a" * 40, source_kind="git", location="file:///x", recipe="cpu",
    parts=[], defines={"A": "1"}, environ={}, targets={"server": ["llama-server"]}, patch_build_info=None,
    compilers={"c": "gcc 12"}, host={"os": "linux"},
)  # fmt: skip


@pytest.mark.parametrize("change", [{"version": "v0.6.0"}, {"location": "https://other"}, {"source_kind": "path"}])
def test_the_same_result_has_the_same_digest(change: dict[str, str]) -> None:
    assert msgspec.structs.replace(PLAN, **change).digest == PLAN.digest


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "b" * 40},
        {"build_number": 1},
        {"recipe": "cuda"},
        {"parts": ["rpc"]},
        {"defines": {"A": "2"}},
        {"environ": {"CC": "x"}},
        {"targets": {}},
        {"omit": ["x"]},
        {"patch_build_info": "x"},
        {"compilers": {}},
        {"host": {"os": "darwin"}},
    ],
)
def test_whatever_decides_the_result_decides_the_digest(change: dict[str, object]) -> None:
    assert msgspec.structs.replace(PLAN, **change).digest != PLAN.digest


@pytest.mark.parametrize("version", ["b11434", "Feature/Über-Lang" * 9, "...", "local-x y"])
@pytest.mark.parametrize("parts", [[], ["rpc", "vulkan", "opencl", "blas"]])
def test_every_build_id_is_a_name(version: str, parts: list[str]) -> None:
    plan = msgspec.structs.replace(PLAN, version=version, recipe="cpu-portable", parts=parts)
    assert is_name(plan.build_id)
    assert is_name(plan.flavour)


def test_only_git_commits_are_called_commits() -> None:
    assert short_commit("0123456789abcdef" * 2 + "01234567") == "012345678"
    assert short_commit("snapshot:0123456789abcdef") == "unknown"
    assert short_commit("tree:0123456789abcdef") == "unknown"
