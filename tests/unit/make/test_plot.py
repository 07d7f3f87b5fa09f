"""Pictures of measurements are what their suffix says, show every quant, and come whole or not at all."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from llama_mgr.errors import BadInputError, StorageError
from llama_mgr.make.ledger import Evaluation
from llama_mgr.make.plot import SUFFIXES, plot, require_plot_name
from tests.tools.made_models import measured

ENTRIES = [
    measured("F16", 270_000_000, kld=0.0, generation_tokens_per_s=8.0),
    measured("Q8_0", 144_000_000, kld=0.001),
    measured("Q4_K_M", 105_000_000, kld=0.05),
    measured("Q4_0", 106_000_000, kld=0.07),
]


def drawn(directory: Path, name: str, entries: Sequence[Evaluation] = ENTRIES, title: str = "tiny") -> bytes:
    plot(entries, title, directory / name)
    return (directory / name).read_bytes()


def png_chunks(content: bytes) -> list[bytes]:
    """Return the names of all chunks of a PNG, each with the right checksum (PNG specification, section 5)."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    place, names = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        body = content[place + 4 : place + 8 + length]
        assert zlib.crc32(body) == struct.unpack(">I", content[place + 8 + length : place + 12 + length])[0]
        names.append(body[:4])
        place += 12 + length
    return names


def test_a_png_is_one(tmp_path: Path) -> None:
    content = drawn(tmp_path, "q.png")
    chunks = png_chunks(content)
    assert (chunks[0], chunks[-1]) == (b"IHDR", b"IEND")
    assert b"IDAT" in chunks
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (8 * 140, 5 * 140)


def test_a_pdf_is_one(tmp_path: Path) -> None:
    content = drawn(tmp_path, "q.PDF")
    assert content.startswith(b"%PDF-1.")
    assert content.rstrip().endswith(b"%%EOF")


def test_an_svg_is_one_and_names_all_quants_and_axes(tmp_path: Path) -> None:
    content = drawn(tmp_path, "q.svg", title="owner/tiny over text.txt")
    root = ET.fromstring(content)  # noqa: S314 (we wrote it)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = ["F16", "Q8_0", "Q4_K_M", "Q4_0", "owner/tiny over text.txt", "size, MiB", "mean KL divergence, nats"]
    for text in [*words, "generation, tokens/s"]:
        assert text.encode() in content


def test_the_same_measurements_give_the_same_svg(tmp_path: Path) -> None:
    first, second = drawn(tmp_path, "1.svg"), drawn(tmp_path, "2.svg")
    assert first == second
    assert first != drawn(tmp_path, "3.svg", [*ENTRIES[:3], measured("Q4_0", 106_000_000, kld=0.08)])


def test_large_models_are_shown_in_gib(tmp_path: Path) -> None:
    large = [measured("Q8_0", 8_000_000_000, kld=0.001), measured("Q4_K_M", 4_500_000_000, kld=0.05)]
    content = drawn(tmp_path, "q.svg", large)
    assert b"size, GiB" in content
    assert b"<!-- 7.0 -->" in content  # a mark of the axis
    assert b"size, MiB" not in content


def test_without_divergence_the_perplexity_is_shown(tmp_path: Path) -> None:
    entries = [measured(quant, 100_000_000, kld=None, perplexity=21.0) for quant in ("Q8_0", "Q4_K_M")]
    content = drawn(tmp_path, "q.svg", entries)
    assert b"perplexity" in content
    assert b"mean KL divergence" not in content


def test_speeds_are_a_colour_where_all_have_one(tmp_path: Path) -> None:
    slow = [*ENTRIES, measured("Q2_K", 88_000_000, kld=0.5, generation_tokens_per_s=None)]
    content = drawn(tmp_path, "q.svg", slow)
    assert b"Q2_K" in content
    assert b"generation, tokens/s" not in content


@pytest.mark.parametrize(
    "entries",
    [
        [measured("F16", 1, kld=0.0)],
        [measured("A", 100, kld=0.0), measured("B", 100, kld=0.0)],
        [measured("A", 100, kld=-0.00001), measured("B", 90, kld=0.1)],
    ],
)
def test_few_and_equal_measurements_are_drawn(tmp_path: Path, entries: list[Evaluation]) -> None:
    content = drawn(tmp_path, "q.svg", entries)
    assert all(one.quant.encode() in content for one in entries)


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    unmeasured = measured("UNMEASURED", kld=None, perplexity=None)
    assert b"UNMEASURED" not in drawn(tmp_path, "q.svg", [*ENTRIES, unmeasured])
    for nothing in ([], [unmeasured]):
        with pytest.raises(BadInputError, match="neither divergence nor perplexity"):
            plot(nothing, "tiny", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("name", ["q.jpg", "q", "png", ".png", "q.png.txt", "q."])
def test_another_suffix_is_refused_with_those_that_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match=r"\.png, \.svg, \.pdf"):
        require_plot_name(tmp_path / name)
    with pytest.raises(BadInputError):
        plot(ENTRIES, "tiny", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_known_suffixes_are_taken_in_any_case(tmp_path: Path) -> None:
    for suffix in (*SUFFIXES, ".SVG"):
        require_plot_name(tmp_path / f"q{suffix}")


def test_an_older_picture_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    old = tmp_path / "q.svg"
    old.write_bytes(b"old")
    assert drawn(tmp_path, "q.svg").startswith(b"<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["q.svg"]
    old.unlink()
    old.mkdir()
    with pytest.raises(StorageError):
        plot(ENTRIES, "tiny", old)
    assert [path.name for path in tmp_path.iterdir()] == ["q.svg"]


def test_a_title_is_shown_without_control_characters(tmp_path: Path) -> None:
    content = drawn(tmp_path, "q.svg", title="a\x1b[31m<b>&c\nd")
    assert b"\x1b" not in content
    ET.fromstring(content)  # noqa: S314 (we wrote it)
