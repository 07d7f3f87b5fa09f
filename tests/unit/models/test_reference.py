"""References: every text is one form or an error, and nothing that others wrote becomes a path outside."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama_mgr.errors import BadReferenceError, LlamaMgrError, RefusedError, UnknownModelError
from llama_mgr.models.aliases import Aliases
from llama_mgr.models.reference import (
    FileRef,
    HubRef,
    NameRef,
    PresetRef,
    Reference,
    UrlRef,
    checked_listing,
    checked_repo_path,
    is_revision,
    parse_hub_reference,
    parse_reference,
)
from llama_mgr.paths import Home, join_below
from llama_mgr.text import escaped

Answer = TypeVar("Answer")
EXAMPLES = int(os.environ.get("LLAMA_MGR_TEST_EXAMPLES", "2000"))
COMMIT = "09816acd5d99df7be770d85ea30822623dab342c"

FORMS: list[tuple[str, Reference]] = [
    ("bartowski/X-GGUF", HubRef("bartowski", "X-GGUF")),
    ("bartowski/X-GGUF:Q4_K_M", HubRef("bartowski", "X-GGUF", "Q4_K_M")),
    ("bartowski/X-GGUF@main", HubRef("bartowski", "X-GGUF", revision="main")),
    (f"a/b:UD-Q4_K_XL@{COMMIT}", HubRef("a", "b", "UD-Q4_K_XL", revision=COMMIT)),
    ("a/b@refs/pr/3", HubRef("a", "b", revision="refs/pr/3")),
    ("a/b@v1.0", HubRef("a", "b", revision="v1.0")),
    ("a/b/c.gguf", HubRef("a", "b", file="c.gguf")),
    ("a/b/UD-Q2/c d-00001-of-00002.gguf@dev", HubRef("a", "b", file="UD-Q2/c d-00001-of-00002.gguf", revision="dev")),
    ("a/b/c@d.gguf", HubRef("a", "b", file="c@d.gguf")),
    ("a/b/c@d.gguf@main", HubRef("a", "b", file="c@d.gguf", revision="main")),
    ("a/b/c.gguf@d.gguf@refs/pr/1", HubRef("a", "b", file="c.gguf@d.gguf", revision="refs/pr/1")),
    ("a/b@x/y/z.gguf", HubRef("a", "b", revision="x/y/z.gguf")),
    ("hf:a/b:q8_0", HubRef("a", "b", "q8_0")),
    ("h:a/b", HubRef("a", "b")),
    ("hf.co/a/b:Q4_0", HubRef("a", "b", "Q4_0")),
    ("HuggingFace.co/a/b", HubRef("a", "b")),
    ("a/b:latest", HubRef("a", "b")),
    ("dranger003/c4ai-iMat.GGUF", HubRef("dranger003", "c4ai-iMat.GGUF")),
    ("_a/b_", HubRef("_a", "b_")),
    ("f:model.gguf", FileRef(Path("model.gguf"))),
    ("f:a/b", FileRef(Path("a/b"))),
    ("./a/b", FileRef(Path("a/b"))),
    ("../../x/y", FileRef(Path("../../x/y"))),
    ("/", FileRef(Path("/"))),
    ("/models/x.gguf", FileRef(Path("/models/x.gguf"))),
    ("~/x.gguf", FileRef(Path("~/x.gguf"))),
    (".", FileRef(Path())),
    ("..", FileRef(Path(".."))),
    ("p:chat", PresetRef("chat")),
    ("qwen:32b", NameRef("qwen", "32b")),
    ("smollm2:q4_1", NameRef("smollm2", "q4_1")),
    ("smol", NameRef("smol")),
    ("qwen3:latest", NameRef("qwen3")),
    ("SmolLM2-135M-Instruct.Q4_1.gguf", NameRef("SmolLM2-135M-Instruct.Q4_1.gguf")),
    ("my model", NameRef("my model")),
    ("cafe\u0301", NameRef("caf\u00e9")),
    ("https://example.org/a/x.gguf", UrlRef("https://example.org/a/x.gguf")),
    ("HTTPS://example.org:8443/x.gguf?a=b", UrlRef("HTTPS://example.org:8443/x.gguf?a=b")),
]


@pytest.mark.parametrize(("text", "meant"), FORMS, ids=[text for text, _ in FORMS])
def test_the_form_decides(text: str, meant: Reference) -> None:
    assert parse_reference(text) == meant
    assert parse_reference(str(meant)) == meant


# Rows 60 to 62 of the table of bad inputs, and their kin.
NO_HUB_REFERENCES = [
    "", "  ", "/", "a/b/c/d", "a//b", "-a/b", "a/b:", "a/b@", "a b/c", "../../x/y", "owner/..", "owner/.", "./..",
    "owner%2f..%2f", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "file:/etc/passwd",
    "https://huggingface.co/a/b", "https://hf.co/a/b/resolve/main/x.gguf", "ftp://a/b.gguf", "ext::sh -c x", "fd::17",
    "a/", "/a", "a/b/", "a/b/c", "a/b/../c.gguf", "a/b//c.gguf", "a/b/./c.gguf", "a/b/c.gguf:Q4_0", "a/b:Q4_0/c.gguf",
    "a/b/c\\d.gguf", "a\\b", "a/b\\c", "a/b@-x", "a/b@a..b", "a/b@x/", "a/b@/x", "a/b@x//y", "a/b@x.lock", "a/b@.x",
    "a/b@x y", "a/b@@", "a/b@x@y", "a/b@{0}", "a/b@main:Q4_0", "a/b:Q4:0", "a/b:-x", "a/b:../x", "a/b: Q4", "a--b/c",
    "a/b--c", "a..b/c", ".a/b", "a./b", "a/.b", "a/b.", "a/-b", "a/b-", "a/b.git", "a/b.GIT/", "con/x", "x/nul",
    "hf.co/x", "hf:hf.co/x", "hf:x", "hf:", "h:", "h:/a/b", "hf:./x", "f:", "p:", "p:A b", "p:../x", "\0", "a\0/b",
    "a/b\n", "\na/b", "a/b\x1b[31m", "a/\u202eb", "a/b\u200b", "\ud800/b", "a/\ud83d", "\u0430/b", "a/caf\u00e9", ":",
    "@", "a:", "a@b", "a:b:c", "a%20b", "a" * 97 + "/b", "a/" + "b" * 97, "a/b:" + "q" * 65, "a/b@" + "r" * 256,
    "x" * 129, "*", "$HOME", "`id`", "C:\\x", "C:/x", "\\\\host\\share", "https://user:tok@example.org/x.gguf",
    "https://example.org/x", "https:///x.gguf", "https://[::1/x.gguf", "https://a:b/x.gguf",
    "https://exa mple.org/x.gguf", "https://example.org/..%2fx.gguf", "https://example.org/%00.gguf",
    "https://example.org/a\\b.gguf", "https://example.org/\u00fc.gguf", "https://example.org/x.gguf%2f", "p:chat",
    "f:x.gguf", "./x.gguf", "~/x", "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", NO_HUB_REFERENCES, ids=ascii)
def test_what_is_no_hub_reference_is_refused_with_the_form(text: str, home: Home) -> None:
    with pytest.raises(BadReferenceError) as caught:
        parse_hub_reference(text, Aliases(home))
    assert caught.value.exit_status == 2
    limit = "at most 4096 characters" in caught.value.message
    assert "owner/name[:quant][@rev]" in caught.value.message or limit
    assert escaped(caught.value.message) == caught.value.message
    assert "tok@" not in caught.value.message


def test_urls_are_answered_with_the_word_reference() -> None:
    for text in ("http://169.254.169.254/x.gguf", "file:///etc/passwd", "https://huggingface.co/a/b"):
        with pytest.raises(BadReferenceError, match="references, not URLs"):
            parse_reference(text)


@pytest.mark.parametrize(
    ("page", "reference"),
    [
        ("https://huggingface.co/a/b", "a/b"),
        ("https://hf.co/a/b/", "a/b"),
        ("https://huggingface.co/a/b/tree/main", "a/b"),
        ("https://huggingface.co/a/b/tree/dev", "a/b@dev"),
        ("https://huggingface.co/a/b/blob/main/Q4/x.gguf", "a/b/Q4/x.gguf"),
        ("https://huggingface.co/a/b/resolve/dev/x%20y.gguf?download=true", "'a/b/x y.gguf@dev'"),
        ("https://huggingface.co/a/b/blob/main/README.md", "a/b"),
        ("https://huggingface.co/datasets/a/b", None),
        ("https://huggingface.co/a", None),
        ("https://huggingface.co/a/../b", None),
    ],
)
def test_a_page_of_the_hub_is_answered_with_its_reference(page: str, reference: str | None) -> None:
    with pytest.raises(BadReferenceError) as caught:
        parse_reference(page)
    assert caught.value.hint == (f"write {reference}" if reference else None)


def test_a_url_names_the_file_that_it_ends_in() -> None:
    reference = parse_reference("https://example.org/a%20b/My%20Model-Q4_0.gguf?key=1")
    assert isinstance(reference, UrlRef)
    assert reference.file_name == "My Model-Q4_0.gguf"


def test_what_exists_on_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").touch()
    (tmp_path / "smol").touch()
    monkeypatch.chdir(tmp_path)
    assert parse_reference("a/b") == HubRef("a", "b")
    assert parse_reference("smol") == NameRef("smol")


def test_aliases_are_replaced_for_the_hub(home: Home) -> None:
    aliases = Aliases(home)
    assert parse_hub_reference("smollm2:135m", aliases) == HubRef("bartowski", "SmolLM2-135M-Instruct-GGUF")
    assert parse_hub_reference("SmolLM2:135M", aliases) == HubRef("bartowski", "SmolLM2-135M-Instruct-GGUF")
    assert parse_hub_reference("a/b:Q4_0", aliases) == HubRef("a", "b", "Q4_0")
    assert isinstance(parse_hub_reference("https://example.org/x.gguf", aliases), UrlRef)


def test_a_name_that_is_no_alias_is_unknown_and_the_nearest_is_named(home: Home) -> None:
    with pytest.raises(UnknownModelError) as caught:
        parse_hub_reference("smolm2:135m", Aliases(home))
    assert caught.value.hint == "did you mean 'smollm2:135m'?"
    with pytest.raises(UnknownModelError) as caught:
        parse_hub_reference("zzzzzzzz", Aliases(home))
    assert caught.value.hint == "llama-mgr search zzzzzzzz"
    with pytest.raises(UnknownModelError) as caught:
        parse_hub_reference("zzzz zzzzzz", Aliases(home))
    assert caught.value.hint == "llama-mgr search 'zzzz zzzzzz'"


def test_tags_as_ollama_writes_them_are_size_and_quant(home: Home) -> None:
    for text in ("qwen3:4b-q8_0", "qwen3:4b:q8_0"):
        assert parse_hub_reference(text, Aliases(home)) == HubRef("unsloth", "Qwen3-4B-GGUF", "q8_0")
    with pytest.raises(UnknownModelError) as caught:
        parse_hub_reference("qwen3:5b-q8_0", Aliases(home))
    assert "did you mean 'qwen3" in (caught.value.hint or "")


def test_revisions_are_those_that_git_could_have() -> None:
    assert all(map(is_revision, ["main", "v1.0", "refs/pr/12", COMMIT, "feature/x_y-z", "1"]))
    assert not any(map(is_revision, ["", "-x", "a..b", "/a", "a/", "a//b", "x.lock", "x.", ".x", "a b", "a~1", "a^"]))


PIECES = [
    "a", "owner", "repo", "/", "//", ":", "@", ".", "..", "-", "--", "\\", "hf:", "h:", "f:", "p:", "hf.co/", "~/",
    "%2f", "https://", "http://", "huggingface.co", ".gguf", "x.gguf", "Q4_K_M", "latest", "main", " ", "\n", "\0",
    "con", "C:", "\u202e", "e\u0301", "\ud800", "?", "#", "[", "]",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.text("aQ4_/:@.-~hf\\", max_size=24)
)


def answer(function: Callable[[str], Answer], text: str) -> Answer | LlamaMgrError:
    try:
        return function(text)
    except LlamaMgrError as error:
        return error


@settings(max_examples=EXAMPLES, deadline=None)
@given(TEXTS)
@example("hf:hf.co/a")
@example("a/b/f:c.gguf")
@example("f:~/x")
@example("//")
def test_every_text_is_a_reference_or_an_error(text: str) -> None:
    found = answer(parse_reference, text)
    if isinstance(found, LlamaMgrError):
        assert isinstance(found, BadReferenceError)
        assert escaped(found.message) == found.message
        return
    assert parse_reference(str(found)) == found
    if isinstance(found, HubRef):
        assert_stays_inside(found.owner, found.repo, *(found.file or "x.gguf").split("/"))
    if isinstance(found, UrlRef):
        assert found.url.lower().startswith("https://")
        assert_stays_inside(found.file_name)
    if isinstance(found, FileRef):
        assert text.startswith(("f:", "/", "./", "../", "~/")) or text in {".", "..", "~"}


def assert_stays_inside(*parts: str) -> None:
    root = Path("/models")
    assert checked_repo_path("/".join(parts)) == parts
    assert join_below(root, *parts).resolve().is_relative_to(root)


@pytest.mark.parametrize(
    "text",
    ["a" * 100_000, "-" * 100_000, "a/" * 50_000, "a/" + "b." * 50_000, "a/b@" + "a/" * 50_000, "a/b@" + "a." * 2000,
     "a/b:" + "-" * 4000, "a " * 2000, "a/" + "--" * 2000, "https://" + "a" * 4000 + ".gguf", "https://" + "%" * 4000,
     "hf:" * 30_000, "a/b/" + "x/" * 2000 + ".gguf", "\u202e" * 100_000],
    ids=range(14),
)  # fmt: skip
def test_long_texts_are_answered_at_once(text: str) -> None:
    started = time.monotonic()
    found = answer(parse_reference, text)
    assert len(str(found)) < 4200  # the whole text at most, or 200 characters of it, each written out
    assert time.monotonic() - started < 5  # a regular expression that blows up takes years


# -- file names that repositories list ---------------------------------------------------------------------------------

HOSTILE_NAMES = [
    "", ".", "..", "/", "//", "./x", "../x", "../../.ssh/authorized_keys", "a/../b", "a/..", "a/.", "a/./b", "a//b",
    "a/", "/etc/passwd", "//host/share", "/a", "C:\\x", "C:/x", "C:x", "c:", "\\\\host\\share", "\\\\?\\C:\\x", "\\x",
    "a\\..\\b", "a\\b", "..\\x", "x\0.gguf", "\0", "a\nb.gguf", "a\rb", "a\tb", "a\x1b[2Jb", "a\x7fb", "a\x85b",
    "a\u2028b", "a\u202egguf.b", "a\u200b.gguf", "\ufeffa", "a\ud800b", "x.gguf:stream", "a:b", "x.gguf.", "x.gguf ",
    "a./b", "a /b", "...", "a/...", " ", "con", "CON", "con.gguf", "Aux.tar.gz", "dir/nul", "prn/x", "com1",
    "COM9.gguf", "lpt0", "lpt\u00b9.x", "CONIN$", "conout$", "con .gguf", "x" * 256, "a/" + "x" * 256, "\u00e9" * 128,
    "/".join(["x" * 200] * 6),
]  # fmt: skip

GOOD_NAMES = [
    "model.gguf", "Q4_K_M/model-00001-of-00002.gguf", ".gitattributes", "README.md", "a b/c (1).gguf", "-x.gguf",
    "~x", "caf\u00e9.gguf", "\u6a21\u578b.gguf", "a..b", "..a", "a'b\"c.gguf", "100%.gguf", "console.gguf",
    "com.gguf", "com10", "x" * 255, "a#b?.gguf", "\U0001f999.gguf",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_hostile_file_names_are_refused(name: str) -> None:
    with pytest.raises(RefusedError) as caught:
        checked_repo_path(name)
    assert caught.value.exit_status == 11
    assert escaped(caught.value.message) == caught.value.message


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_one_hostile_name_refuses_the_whole_listing(name: str) -> None:
    with pytest.raises(RefusedError):
        checked_listing([*GOOD_NAMES, name, "last.gguf"])


def test_ordinary_file_names_are_taken_apart() -> None:
    listing = checked_listing(GOOD_NAMES)
    assert list(listing) == GOOD_NAMES
    assert listing["Q4_K_M/model-00001-of-00002.gguf"] == ("Q4_K_M", "model-00001-of-00002.gguf")
    for parts in listing.values():
        assert_stays_inside(*parts)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("model.gguf", "Model.gguf"),
        ("caf\u00e9.gguf", "cafe\u0301.gguf"),
        ("stra\u00dfe.gguf", "STRASSE.gguf"),
        ("Q4/x.gguf", "q4/X.gguf"),
        ("x.gguf", "x.gguf"),
        ("\u212b.gguf", "\u00e5.gguf"),
    ],
)
def test_names_that_are_one_file_elsewhere_are_refused_and_both_named(first: str, second: str) -> None:
    with pytest.raises(RefusedError) as caught:
        checked_listing(["a.gguf", first, "b/c.gguf", second])
    assert first in caught.value.message
    assert second in caught.value.message


@pytest.mark.parametrize("names", [("x", "x/y.gguf"), ("a/b/c.gguf", "A/b")])
def test_a_name_is_not_a_file_and_a_directory(names: tuple[str, ...]) -> None:
    for order in (names, names[::-1]):
        with pytest.raises(RefusedError) as caught:
            checked_listing(order)
        assert all(name in caught.value.message for name in names)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from([*HOSTILE_NAMES[:40], "/", "a", "."]), max_size=5).map("".join)))
def test_every_file_name_is_refused_or_stays_inside(name: str) -> None:
    parts = answer(checked_repo_path, name)
    if isinstance(parts, LlamaMgrError):
        assert isinstance(parts, RefusedError)
        return
    assert "/".join(parts) == name
    assert_stays_inside(*parts)


def test_a_long_listing_is_checked_quickly() -> None:
    started = time.monotonic()
    assert len(checked_listing(f"part-{number:06d}/model-Q4_K_M.gguf" for number in range(20_000))) == 20_000
    assert time.monotonic() - started < 30
