from pathlib import Path

import pytest

from llama_mgr.errors import BadInputError, IncompleteSourceError, RefusedError
from llama_mgr.make.requirements import Requirement, read_requirements, requirement_set

CONVERT = "requirements-convert_hf_to_gguf.txt"


def lines(root: Path) -> list[str]:
    return [item.line for item in read_requirements(root).items]


def test_includes_are_followed_and_index_options_dropped(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "base.txt").write_text("NumPy ~= 2.2.6  # comment\n\nsentencepiece>=0.1.98,<0.3.0\n")
    (tmp_path / "requirements" / CONVERT).write_text(
        "-r ./base.txt\n--extra-index-url https://index.test/whl/cpu\n## why\ntorch==2.11.0\n"
    )
    assert lines(tmp_path) == ["numpy~=2.2.6", "sentencepiece>=0.1.98,<0.3.0", "torch==2.11.0"]


def test_the_old_file_name_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "requirements-convert-hf-to-gguf.txt").write_text("torch~=2.1.1\n")
    assert lines(tmp_path) == ["torch~=2.1.1"]


def test_a_tree_without_converter_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(IncompleteSourceError, match="requirements-convert_hf_to_gguf"):
        read_requirements(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "-r ../../outside.txt",
        "-r /etc/passwd",
        f"-r {CONVERT}",
        "-e .",
        "./local.whl",
        "thing @ https://index.test/thing.whl",
        "git+https://index.test/thing",
        "--install-option=x",
        "-c constraints.txt",
        "thing --hash=sha256:00",
    ],
)
def test_nothing_but_packages_is_taken_from_a_tree(tmp_path: Path, line: str) -> None:
    (tmp_path.parent / "outside.txt").write_text("evil\n")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / CONVERT).write_text(f"{line}\n")
    with pytest.raises((RefusedError, BadInputError)):
        read_requirements(tmp_path)


def test_a_link_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("evil\n")
    (tmp_path / "tree" / "requirements").mkdir(parents=True)
    (tmp_path / "tree" / "requirements" / "in.txt").symlink_to(outside)
    (tmp_path / "tree" / "requirements" / CONVERT).write_text("-r in.txt\n")
    with pytest.raises(RefusedError):
        read_requirements(tmp_path / "tree")


def test_equal_sets_share_a_digest_and_other_sets_do_not() -> None:
    one = requirement_set(["torch==2.11.0", "numpy ~=2.2.6"])
    assert one.digest == requirement_set(["Numpy~=2.2.6", "torch == 2.11.0", "torch==2.11.0"]).digest
    assert one.digest != requirement_set(["torch==2.11.0", "numpy~=2.2.7"]).digest


def test_extras_and_markers_are_kept() -> None:
    (item,) = requirement_set(['a_b.c[x]>=1 ; python_version < "3.12"']).items
    assert item == Requirement("a-b-c", ">=1", "[x]", ' ; python_version < "3.12"')


@pytest.mark.parametrize("line", ["numpy>=$(id)", "numpy==1 2", "numpy=1"])
def test_a_version_that_is_none_is_bad_input(line: str) -> None:
    with pytest.raises((BadInputError, RefusedError)):
        requirement_set([line])
