import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_mgr.errors import BadNameError, LlamaMgrError, NameTakenError
from llama_mgr.names import NAME_LIMIT, checked_define_name, checked_name
from llama_mgr.paths import Home, home_from, join_below
from llama_mgr.text import duration_words, nearest, printable, size_words


@pytest.mark.parametrize("name", ["a", "b11434-cpu", "x.y_z", "0", "a" * NAME_LIMIT])
def test_good_names(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("../../etc", "form"),
        ("/abs", "form"),
        (".", "form"),
        ("..", "form"),
        ("-rf", "start with '-'"),
        ("a\nb", "form"),
        ("a\0b", "form"),
        ("a\u202eb", "form"),
        ("Main", "form"),
        ("a" * 65, "64"),
        ("😀" * 65, "64"),
        ("current", "reserved"),
        ("con", "reserved"),
        ("lock", "reserved"),
        (".git", "reserved"),
        ("lpt1.x", "reserved"),
        ("foo.json", "reserved"),
        ("foo.lock", "reserved"),
    ],
)
def test_bad_names(name: str, reason: str) -> None:
    with pytest.raises(BadNameError, match=reason):
        checked_name(name)


def test_a_name_in_another_spelling_is_taken() -> None:
    with pytest.raises(NameTakenError, match="'main' exists"):
        checked_name("Main", taken=["main"])


@given(st.text(max_size=100))
def test_whatever_is_typed_stays_below_the_root(text: str) -> None:
    root = Home(home_from({"LLAMA_MGR_HOME": "/somewhere"}).root).instances_dir
    try:
        path = join_below(root, f"{checked_name(text)}.json")
    except LlamaMgrError:
        return
    assert path.parent == root


@given(st.text())
def test_printable_never_moves_the_cursor(text: str) -> None:
    shown = printable(text)
    assert all(character.isprintable() or character == " " or ord(character) > 0x9F for character in shown)
    assert len(shown) <= 200 * 10 + 1


@pytest.mark.parametrize("name", ["", "A B", "1A", "A;B", "A=B"])
def test_bad_define_names(name: str) -> None:
    with pytest.raises(LlamaMgrError):
        checked_define_name(name)


def test_words() -> None:
    assert size_words(512) == "512 B"
    assert size_words(1536) == "1.5 KiB"
    assert size_words(3 * 1024**4) == "3.0 TiB"
    assert duration_words(0.44) == "0.4 s"
    assert duration_words(293) == "4 min 53 s"
    assert duration_words(7500) == "2 h 05 min"
    assert nearest("GGML_CUDDA", ["GGML_CUDA", "GGML_HIP"]) == "GGML_CUDA"
    assert nearest("zzz", ["GGML_CUDA"]) is None
