"""Aliases: the shipped ones, the user's on top, and a file that keeps what people wrote."""

import tomllib
from pathlib import Path

import pytest

from llama_mgr.errors import (
    BadConfigError,
    BadInputError,
    BadNameError,
    BadReferenceError,
    NameTakenError,
    NewerStateError,
    UnknownModelError,
)
from llama_mgr.models.aliases import SHIPPED_FILE, Aliases, checked_alias_name, checked_target
from llama_mgr.models.reference import HubRef, NameRef, parse_reference
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter

OWN = HubRef("me", "my-model-GGUF", "Q8_0")
QUIET = SilentReporter()


def written(home: Home, text: str) -> Aliases:
    aliases = Aliases(home)
    aliases.file.write_text(text, "utf-8")
    return aliases


def test_every_shipped_alias_is_well_formed(home: Home) -> None:
    shipped = tomllib.loads(SHIPPED_FILE.read_text("utf-8"))["aliases"]
    assert len(shipped) >= 30
    for name, target in shipped.items():
        assert checked_alias_name(name) == name
        assert isinstance(parse_reference(name), NameRef)
        assert str(parse_reference(target)) == target
        assert Aliases(home).expand(name) == parse_reference(target)


def test_a_family_with_sizes_has_a_usual_size(home: Home) -> None:
    targets = {entry.name: entry.target for entry in Aliases(home).entries()}
    for name in targets:
        family = name.partition(":")[0]
        sizes = [targets[other] for other in targets if other.startswith(f"{family}:")]
        if sizes:
            assert targets[family] in sizes, family


def test_the_starter_model_has_an_alias(home: Home) -> None:
    assert str(Aliases(home).expand("smollm2:135m")) == "bartowski/SmolLM2-135M-Instruct-GGUF"


@pytest.mark.parametrize("spelling", ["qwen3", "QWEN3", "qwen3:latest", "Qwen3:LATEST", "QWEN3:8B"])
def test_spelling_does_not_count(spelling: str, home: Home) -> None:
    assert Aliases(home).expand(spelling) == HubRef("unsloth", "Qwen3-8B-GGUF")


def test_a_quant_after_an_alias_is_that_quant_of_it(home: Home) -> None:
    assert Aliases(home).expand("qwen3:Q8_0") == HubRef("unsloth", "Qwen3-8B-GGUF", "Q8_0")
    assert Aliases(home).expand("qwen3:9b") is None
    aliases = written(home, '[aliases]\nx = "a/b:Q4_0@dev"\ny = "a/b/z.gguf"\n"y:q8_0" = "c/d"\n')
    assert aliases.expand("x:q6_k") == HubRef("a", "b", "q6_k", revision="dev")
    assert aliases.expand("y:q6_k") == HubRef("a", "b", "q6_k")
    assert aliases.expand("y:q8_0") == HubRef("c", "d")


def test_a_tag_as_ollama_writes_it_is_that_quant_of_that_size(home: Home) -> None:
    aliases = Aliases(home)
    for name in ("qwen3:4b-Q8_0", "Qwen3:4B:Q8_0"):
        assert aliases.expand(name) == HubRef("unsloth", "Qwen3-4B-GGUF", "Q8_0")
    assert aliases.expand("qwen3:30b-ud-q4_k_xl") == HubRef("unsloth", "Qwen3-30B-A3B-Instruct-2507-GGUF", "ud-q4_k_xl")
    for unknown in ("qwen3:5b-q8_0", "qwen3:banana-q8", "qwen3:q8_0-x", "none:4b-q8_0", "qwen3:4b:", "qwen3:"):
        assert aliases.expand(unknown) is None
    assert aliases.suggestion("qwen3:4c-q8_0")


def test_an_own_alias_like_the_shipped_one_stands_before_nothing(home: Home) -> None:
    aliases = Aliases(home)
    shipped = aliases.expand("qwen3")
    assert shipped is not None
    assert aliases.add("qwen3", shipped, QUIET).stands_before is None
    (own,) = [entry for entry in aliases.entries() if entry.is_own]
    assert (own.name, own.stands_before) == ("qwen3", None)
    assert aliases.remove("qwen3", QUIET).stands_before is None


def test_an_own_alias_is_added_and_removed(home: Home) -> None:
    added = Aliases(home).add("Qwen:32B", OWN, QUIET)
    assert (added.name, added.stands_before) == ("qwen:32b", None)
    assert Aliases(home).expand("qwen:32b") == OWN
    assert [entry for entry in Aliases(home).entries() if entry.is_own] == [added]
    assert Aliases(home).remove("QWEN:32b", QUIET).target == OWN
    assert Aliases(home).expand("qwen:32b") is None


def test_an_own_alias_stands_before_a_shipped_one(home: Home) -> None:
    aliases = Aliases(home)
    shipped = aliases.expand("qwen3")
    assert aliases.add("qwen3", OWN, QUIET).stands_before == shipped
    assert aliases.expand("qwen3") == OWN
    assert aliases.expand("qwen3:8b") == shipped
    assert aliases.remove("qwen3", QUIET).stands_before == shipped
    assert aliases.expand("qwen3") == shipped


def test_adding_twice_is_done_already_and_another_target_is_a_conflict(home: Home) -> None:
    aliases = Aliases(home)
    aliases.add("x", OWN, QUIET)
    before = aliases.file.stat().st_ino
    aliases.add("X", OWN, QUIET)
    assert aliases.file.stat().st_ino == before
    with pytest.raises(NameTakenError, match="it stands for me/my-model-GGUF:Q8_0") as caught:
        aliases.add("x", HubRef("a", "b"), QUIET)
    assert caught.value.hint == "llama-mgr alias rm x"
    assert aliases.expand("x") == OWN


def test_comments_order_and_links_stay(home: Home, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text('# mine\nschema = 1\n\n[aliases]\nz = "a/b"  # last\n"Old:1b" = "a/c"\na = "a/d"\n')
    real.chmod(0o640)
    aliases = Aliases(home)
    aliases.file.symlink_to(real)
    aliases.add("new", OWN, QUIET)
    aliases.remove("old:1b", QUIET)
    assert aliases.file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    text = real.read_text()
    assert text == '# mine\nschema = 1\n\n[aliases]\nz = "a/b"  # last\na = "a/d"\nnew = "me/my-model-GGUF:Q8_0"\n'


def test_a_new_file_is_whole_toml(home: Home) -> None:
    aliases = Aliases(home)
    aliases.add("qwen:32b", OWN, QUIET)
    assert aliases.file.read_text() == 'schema = 1\n\n[aliases]\n"qwen:32b" = "me/my-model-GGUF:Q8_0"\n'


def test_removing_what_is_not_ones_own_says_why(home: Home) -> None:
    with pytest.raises(BadInputError, match="it ships with llama-mgr"):
        Aliases(home).remove("qwen3", QUIET)
    Aliases(home).add("mine", OWN, QUIET)
    with pytest.raises(UnknownModelError) as caught:
        Aliases(home).remove("mime", QUIET)
    assert caught.value.hint == "did you mean 'mine'?"


@pytest.mark.parametrize(
    "name",
    ["", " ", "a/b", "-x", ".x", "a b", "a:", ":a", "a:b:c", "a:-b", "p:x", "f", "hf:x", "h", "x" * 65, "a\n",
     "\u202ex", "../x", "~", "a\\b", "a:" + "b" * 65, "latest:", "@x", "x@y", "*"],
    ids=ascii,
)  # fmt: skip
def test_a_bad_name_is_refused(name: str, home: Home) -> None:
    with pytest.raises(BadNameError) as caught:
        Aliases(home).add(name, OWN, QUIET)
    assert caught.value.exit_status == 2
    assert not Aliases(home).file.exists()


@pytest.mark.parametrize(
    "text", ["./x.gguf", "/x", "p:chat", "qwen3", "nothing", "https://example.org/x.gguf", "a/b/c", ""]
)
def test_an_alias_stands_only_for_something_on_the_hub(text: str, home: Home) -> None:
    with pytest.raises(BadReferenceError):
        checked_target(text, Aliases(home))


def test_an_alias_of_an_alias_is_answered_with_what_it_stands_for(home: Home) -> None:
    with pytest.raises(BadReferenceError) as caught:
        checked_target("qwen3", Aliases(home))
    assert caught.value.hint == "it is an alias itself: write unsloth/Qwen3-8B-GGUF"
    with pytest.raises(BadReferenceError) as caught:
        checked_target("mine", written(home, '[aliases]\nmine = "a/b/c d.gguf"\n'))
    assert caught.value.hint == "it is an alias itself: write 'a/b/c d.gguf'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[aliases]\nx = "a/b"\nX = "a/c"\n', "'x' is there twice"),
        ('[aliases]\n"x:latest" = "a/b"\nx = "a/c"\n', "'x' is there twice"),
        ('[aliases]\nx = "./y"\n', "must stand for owner/name"),
        ('[aliases]\nx = "qwen3"\n', "must stand for owner/name"),
        ('[aliases]\nx = "a b/c"\n', "owner/name"),
        ('[aliases]\n"a/b" = "a/b"\n', "name or name:tag"),
        ("[aliases]\nx = 1\n", "expected `str`"),
        ('[aliases]\nllama3.2 = "a/b"\n', "expected `str`"),
        ('x = "a/b"\n', "unknown key 'x'"),
        ("[aliases\n", "aliases.toml:1"),
        ("\x00", "UTF-8"),
    ],
)
def test_a_bad_file_is_an_error_that_points_and_is_not_overwritten(text: str, says: str, home: Home) -> None:
    aliases = written(home, text)
    for use in (
        lambda: aliases.expand("qwen3"),
        lambda: aliases.add("new", OWN, QUIET),
        lambda: aliases.remove("x", QUIET),
    ):
        with pytest.raises(BadConfigError) as caught:
            use()
        assert says in caught.value.message
        assert str(aliases.file) in caught.value.message
    assert aliases.file.read_text("utf-8") == text


def test_a_newer_file_is_left_alone(home: Home) -> None:
    aliases = written(home, "schema = 2\n")
    with pytest.raises(NewerStateError):
        aliases.add("new", OWN, QUIET)
    assert aliases.file.read_text() == "schema = 2\n"
