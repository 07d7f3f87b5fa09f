"""Importance matrices are told from other files before anything is done with them."""

from pathlib import Path

import pytest

from llama_mgr.errors import BadGgufError, LlamaMgrError
from llama_mgr.make.imatrix import require_imatrix
from tests.tools.gguf_file import Typed, gguf_bytes, model_bytes
from tests.tools.model_library import PROJECTOR, put

# The keys and tensors of `IMatrixCollector::save_imatrix` of tools/imatrix/imatrix.cpp (b11434).
MATRIX = gguf_bytes(
    {
        "general.type": "imatrix",
        "imatrix.datasets": ["text.txt"],
        "imatrix.chunk_count": 4,
        "imatrix.chunk_size": 512,
    },
    [("blk.0.attn_q.weight.in_sum2", (256, 1), "F32"), ("blk.0.attn_q.weight.counts", (1, 1), "F32")],
)


def test_a_matrix_is_one_whatever_it_is_called(tmp_path: Path) -> None:
    require_imatrix(put(tmp_path / "tiny.imatrix.gguf", MATRIX))
    require_imatrix(put(tmp_path / "matrix.dat", MATRIX))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (model_bytes(), "model"),
        (PROJECTOR, "mmproj"),
        (gguf_bytes({"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}), "adapter"),
        (gguf_bytes({"general.type": "\x1b[31mimatrix"}), r"\\x1b\[31mimatrix"),
    ],
)
def test_another_gguf_is_named_for_what_it_is(tmp_path: Path, content: bytes, kind: str) -> None:
    file = put(tmp_path / "tiny.imatrix.gguf", content)
    with pytest.raises(BadGgufError, match=rf"imatrix\.gguf': it is a GGUF of the kind '{kind}'"):
        require_imatrix(file)


# What llama-imatrix wrote until b6100: the number of entries, then each with its name (imatrix.cpp of that time).
OLD_FORM = (1).to_bytes(4, "little") + (19).to_bytes(4, "little") + b"blk.0.attn_q.weight" + bytes(1036)


@pytest.mark.parametrize("content", [b"", OLD_FORM, MATRIX[:200], MATRIX[:-100], b"GGUF", b"a text\n"])
def test_what_is_no_whole_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadGgufError):
        require_imatrix(put(tmp_path / "tiny.imatrix.gguf", content))


def test_a_matrix_with_a_hostile_count_is_refused(tmp_path: Path) -> None:
    hostile = gguf_bytes({"general.type": Typed("uint64", 2**63)})
    with pytest.raises(BadGgufError):
        require_imatrix(put(tmp_path / "x.gguf", hostile))


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(LlamaMgrError, match="cannot"):
        require_imatrix(tmp_path / "gone.gguf")
