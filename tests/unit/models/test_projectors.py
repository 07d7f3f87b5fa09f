"""Projectors: which of those that a repository has belongs to a model."""

from llama_mgr.models.hub_repo import HubFile
from llama_mgr.models.quants import projectors


def hub_file(name: str) -> HubFile:
    return HubFile("owner/repo", name, "0" * 40, "f" * 64, 1 << 30)


def best(model: str, *names: str) -> str | None:
    found = projectors([hub_file(name) for name in names], model)
    return found[0].name if found else None


def test_f16_is_the_projector_to_take() -> None:
    names = ("mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-Q8_0.gguf", "m-Q4_K_M.gguf")
    assert [file.name for file in projectors([hub_file(name) for name in names])] == [
        "mmproj-F16.gguf", "mmproj-BF16.gguf", "mmproj-Q8_0.gguf", "mmproj-F32.gguf",
    ]  # fmt: skip


def test_the_projector_is_the_one_beside_the_model() -> None:
    names = ("mmproj-F16.gguf", "a/mmproj-Q8_0.gguf", "b/mmproj-F16.gguf")
    assert best("a/m-Q4_K_M.gguf", *names) == "a/mmproj-Q8_0.gguf"
    assert best("c/m-Q4_K_M.gguf", *names) == "mmproj-F16.gguf"
    assert best("m-Q4_K_M.gguf", *names) == "mmproj-F16.gguf"
    assert best("ab/m.gguf", "a/mmproj-F16.gguf") is None


def test_of_two_models_each_has_its_own_projector() -> None:
    names = ("mmproj-gemma-3-4b-it-F16.gguf", "gemma-3-12b-it-mmproj-F16.gguf")
    assert best("gemma-3-4b-it-Q4_K_M.gguf", *names) == names[0]
    assert best("gemma-3-12b-it-Q4_K_M.gguf", *names) == names[1]
    assert best("gemma-3-27b-it-Q4_K_M.gguf", *names, "mmproj-Q8_0.gguf") == "mmproj-Q8_0.gguf"
    assert best("gemma-3-4b-it-Q4_K_M.gguf", *names, "mmproj-F16.gguf") == names[0]
