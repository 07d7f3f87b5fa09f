"""A source tree as recipes see it."""

from pathlib import Path

import pytest

from llama_mgr.build.tree import DirectoryTree, declared_options


def tree(root: Path, **files: str) -> DirectoryTree:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return DirectoryTree(root)


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ('option(GGML_CUDA "ggml: use CUDA" OFF)', {"GGML_CUDA"}),
        ('OPTION ( GGML_CUDA "x" OFF)', {"GGML_CUDA"}),
        ('set   (GGML_CUDA_FA_QUANTS "a;b" CACHE STRING\n "which")', {"GGML_CUDA_FA_QUANTS"}),
        ('set(GGML_BLAS_VENDOR ${DEFAULT} CACHE STRING "v")', {"GGML_BLAS_VENDOR"}),
        ('cmake_dependent_option(GGML_X "x" ON "GGML_Y" OFF)', {"GGML_X"}),
        ('set(GGML_OPENMP_ENABLED "ON" CACHE INTERNAL "")', set()),
        ("set(GGML_PLAIN ON)\nset(OTHER x CACHE STRING y)", {"OTHER"}),
        ("llama_option_depr(WARNING LLAMA_CUDA GGML_CUDA)", set()),
        ("# option(COMMENTED)\n#[[ option(BLOCK)\n]] option(AFTER)", {"AFTER"}),
        ("my_option(NAME x)", set()),
    ],
)
def test_declared_options(tmp_path: Path, text: str, declared: set[str]) -> None:
    assert declared_options(tree(tmp_path, CMakeLists_txt=text)) == declared


def test_options_of_subdirectories_count(tmp_path: Path) -> None:
    files = {
        "ggml/CMakeLists_txt": "option(A)",
        "ggml/src/ggml-rpc/CMakeLists_txt": "option(B)",
        "x/CMakeLists_txt": "option(C)",
    }
    assert declared_options(tree(tmp_path, **files)) == {"A", "B"}


def test_answer_is_kept_for_the_tree(tmp_path: Path) -> None:
    one = tree(tmp_path, CMakeLists_txt="option(A)")
    assert declared_options(one) == {"A"}
    (tmp_path / "CMakeLists.txt").write_text("option(B)")
    assert declared_options(one) == {"A"}
    assert declared_options(DirectoryTree(tmp_path)) == {"B"}


def test_directory_tree(tmp_path: Path) -> None:
    one = tree(tmp_path / "root", CMakeLists_txt="x", **{"ggml/a_txt": "é"})
    assert one.has("ggml")
    assert one.has("ggml/a.txt")
    assert not one.has("ggml/b.txt")
    assert one.read("ggml/a.txt") == "é"
    assert one.read("ggml") is None
    assert one.read("missing") is None
    (tmp_path / "root" / "bad.txt").write_bytes(b"\xff")
    assert one.read("bad.txt") == "\ufffd"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link", "a\0b"])
def test_paths_that_leave_the_tree_are_absent(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("x")
    one = tree(tmp_path / "root", CMakeLists_txt="x")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    assert not one.has(path)
    assert one.read(path) is None
