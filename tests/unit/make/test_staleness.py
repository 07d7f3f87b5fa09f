"""What people are told about a file whose converter or quantizer has changed since."""

from pathlib import Path

import msgspec
import pytest

from llama_mgr.build.git_program import GitProgram
from llama_mgr.build.mirror import Mirror
from llama_mgr.build.record import BuildRecord
from llama_mgr.build.repository import repository
from llama_mgr.make.converter_code import ConverterCode
from llama_mgr.make.staleness import MadeWith, NowWith, Staleness, quantizer_code, verdict
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.scratch_repository import Scratch
from tests.tools.shelf_build import plan_of, publish_build
from tests.tools.tiny_repository import run_git

LLAMA = "conversion/llama.py:LlamaModel"
BASE = "conversion/base.py:TextModel"
OLD, NEW = "0" * 40, "1" * 40


def converted(was: dict[str, str], now: dict[str, str], version: str = "b11401") -> Staleness:
    return verdict(
        MadeWith(OLD, ConverterCode(units=was), build_version=version),
        NowWith(NEW, ConverterCode(units=now), build_version="b11434"),
    )


def quantized(was: dict[str, str], now: dict[str, str]) -> Staleness:
    return verdict(
        MadeWith(quantizer_commit=OLD, quantizer_code=was, build_version="b11401"),
        NowWith(quantizer_commit=NEW, quantizer_code=now),
    )


def test_a_changed_method_of_the_architecture_is_stale() -> None:
    found = converted({f"{LLAMA}.modify_tensors": "a"}, {f"{LLAMA}.modify_tensors": "b"})

    assert found == Staleness("stale", ("LlamaModel.modify_tensors changed in conversion/llama.py since b11401",))


def test_what_is_new_and_what_is_gone_is_said() -> None:
    assert converted({f"{LLAMA}.permute": "a"}, {LLAMA: "a"}) == Staleness(
        "stale",
        (
            "LlamaModel is new in conversion/llama.py since b11401",
            "LlamaModel.permute is gone from conversion/llama.py since b11401",
        ),
    )


def test_a_changed_module_is_said() -> None:
    found = converted({"conversion/llama.py": "a"}, {"conversion/llama.py": "b"}, version="")

    assert found == Staleness("stale", ("conversion/llama.py changed since it was made",))


def test_changes_of_the_common_classes_alone_are_a_maybe() -> None:
    found = converted({LLAMA: "a", f"{BASE}.set_vocab": "a"}, {LLAMA: "a", f"{BASE}.set_vocab": "b"})

    assert found == Staleness("maybe", ("TextModel.set_vocab changed in conversion/base.py since b11401",))


def test_the_same_code_of_another_commit_is_fresh() -> None:
    assert converted({LLAMA: "a"}, {LLAMA: "a"}) == Staleness("fresh")


def test_equal_commits_are_fresh_whatever_else_is_recorded() -> None:
    made = MadeWith(OLD, ConverterCode(units={LLAMA: "a"}), OLD, {"src/llama-quant.cpp": "a"})

    assert verdict(made, NowWith(OLD, ConverterCode(unknown="gone"), OLD, {})) == Staleness("fresh")
    assert verdict(MadeWith(OLD), NowWith(OLD)) == Staleness("fresh")


def test_two_empty_commits_are_not_the_same_commit() -> None:
    made, now = ConverterCode(units={LLAMA: "a"}), ConverterCode(units={LLAMA: "b"})

    assert verdict(MadeWith(converter_code=made), NowWith(converter_code=now)).state == "stale"
    assert verdict(MadeWith(quantizer_code={"a.c": "1"}), NowWith(quantizer_code={"a.c": "2"})).state == "stale"


def test_five_reasons_are_named_and_the_others_counted() -> None:
    units = [f"{LLAMA}.m{index}" for index in range(7)] + [f"{BASE}.m{index}" for index in range(3)]

    found = converted(dict.fromkeys(units, "a"), dict.fromkeys(units, "b"))

    assert found.state == "stale"
    assert len(found.reasons) == 6
    assert all(reason.startswith("LlamaModel.") for reason in found.reasons[:5])
    assert found.reasons[-1] == "and 5 more"
    five = dict.fromkeys(units[:5], "a")
    assert len(converted(five, dict.fromkeys(five, "b")).reasons) == 5


def test_names_are_shown_without_control_characters() -> None:
    (reason,) = converted({"a.py:\x1b[2Jb": "a"}, {"a.py:\x1b[2Jb": "b"}).reasons

    assert "\x1b" not in reason


def test_nothing_recorded_is_unknown() -> None:
    found = verdict(MadeWith(), NowWith(NEW, ConverterCode(units={LLAMA: "a"}), NEW, {"src/llama-quant.cpp": "a"}))

    assert found == Staleness("unknown", ("nothing is recorded about the code that made it",))


@pytest.mark.parametrize(
    ("made", "now", "words"),
    [
        (None, ConverterCode(units={LLAMA: "a"}), "it was not recorded"),
        (ConverterCode(units={LLAMA: "a"}), None, "it was not recorded"),
        (ConverterCode(units={LLAMA: "a"}), ConverterCode(unknown="there is no converter"), "there is no converter"),
        (ConverterCode(unknown="x.py has no code for Y"), ConverterCode(units={LLAMA: "a"}), "x.py has no code for Y"),
        (ConverterCode(form=0, units={LLAMA: "a"}), ConverterCode(units={LLAMA: "a"}), "in another way"),
    ],
)
def test_converters_that_cannot_be_compared_are_unknown(
    made: ConverterCode | None, now: ConverterCode | None, words: str
) -> None:
    found = verdict(MadeWith(OLD, made), NowWith(NEW, now))

    assert found.state == "unknown"
    assert words in found.reasons[0]


def test_a_changed_quantizer_is_stale() -> None:
    was = {"src/llama-quant.cpp": "a", "ggml/src/ggml-quants.c": "b"}

    assert quantized(was, dict(was)) == Staleness("fresh")
    assert quantized(was, was | {"src/llama-quant.cpp": "c"}) == Staleness(
        "stale", ("src/llama-quant.cpp changed since b11401",)
    )


def test_a_quantizer_that_only_moved_is_fresh() -> None:
    assert quantized({"examples/quantize/quantize.cpp": "a"}, {"tools/quantize/quantize.cpp": "a"}).state == "fresh"
    assert quantized({"examples/quantize/quantize.cpp": "a"}, {"tools/quantize/quantize.cpp": "b"}).reasons == (
        "tools/quantize/quantize.cpp changed since b11401",
    )
    assert quantized({"src/llama.cpp": "a"}, {"src/llama-quant.cpp": "a"}).reasons == (
        "src/llama-quant.cpp is new since b11401",
        "src/llama.cpp is gone since b11401",
    )


def test_a_quantizer_of_which_nothing_is_known_leaves_the_answer_open() -> None:
    same = {LLAMA: "a"}
    made = MadeWith(OLD, ConverterCode(units=same), OLD, {"src/llama-quant.cpp": "a"})

    found = verdict(made, NowWith(NEW, ConverterCode(units=same), NEW, {}))

    assert found.state == "unknown"
    assert "quantizer" in found.reasons[0]
    changed = verdict(made, NowWith(NEW, ConverterCode(units={LLAMA: "b"}), NEW, {}))
    assert (changed.state, len(changed.reasons)) == ("stale", 2)


# -- the quantizer's files, from the mirror ----------------------------------------------------------------------------


@pytest.fixture
def scratch(tmp_path: Path, environ: dict[str, str]) -> Scratch:
    del environ  # the repository is beside the home that it names
    made = Scratch(tmp_path / "llama.cpp")
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        made.git("config", key, "true")
    return made


def add_files(scratch: Scratch, *names: str) -> str:
    for name in names:
        (scratch.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch.directory / name).write_text(f"// {name}\n")
    return scratch.commit()


def mirrored(home: Home, url: str, environ: dict[str, str]) -> Path:
    mirror = Mirror(home, repository(url), GitProgram(environ, {}), SilentReporter())
    mirror.refresh()
    return mirror.directory


def build_of(home: Home, location: str, commit: str, **plan: str) -> BuildRecord:
    changed = msgspec.structs.replace(plan_of(), location=location, commit=commit, **plan)
    return publish_build(home, changed)


def blobs(scratch: Scratch, commit: str, *names: str) -> dict[str, str]:
    return {name: scratch.git("rev-parse", f"{commit}:{name}") for name in names}


def missing(mirror_dir: Path, commit: str) -> list[str]:
    listed = run_git("rev-list", "--objects", "--missing=print", commit, cwd=mirror_dir).splitlines()
    return [line for line in listed if line.startswith("?")]


NEWEST = (
    "src/llama-quant.cpp", "src/llama-quant.h", "ggml/src/ggml-quants.c", "ggml/src/ggml-quants.h",
    "tools/quantize/quantize.cpp",
)  # fmt: skip


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ((*NEWEST, "src/llama.cpp"), NEWEST),
        (("src/llama.cpp", "examples/quantize/quantize.cpp"), ("src/llama.cpp", "examples/quantize/quantize.cpp")),
        (("llama.cpp", "ggml-quants.c", "ggml-quants.h"), ("llama.cpp", "ggml-quants.c", "ggml-quants.h")),
        (("src/llama-quant.cpp/not-a-file",), ()),
        ((), ()),
    ],
)
def test_the_files_of_each_era_are_named_and_not_fetched(
    home: Home, environ: dict[str, str], scratch: Scratch, has: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    commit = add_files(scratch, *has)
    mirror_dir = mirrored(home, scratch.url, environ)
    before = missing(mirror_dir, commit)

    found = quantizer_code(home, build_of(home, scratch.url, commit), environ, SilentReporter())

    assert found == blobs(scratch, commit, *expected)
    assert len(before) == len(has) + 1
    assert missing(mirror_dir, commit) == before


def test_a_commit_that_the_mirror_lacks_is_not_fetched(home: Home, environ: dict[str, str], scratch: Scratch) -> None:
    add_files(scratch, "src/llama-quant.cpp")
    mirror_dir = mirrored(home, scratch.url, environ)
    newer = add_files(scratch, "src/llama-quant.h")

    assert quantizer_code(home, build_of(home, scratch.url, newer), environ, SilentReporter()) == {}
    assert newer not in run_git("cat-file", "--batch-check", "--batch-all-objects", cwd=mirror_dir)


@pytest.mark.parametrize(
    "plan",
    [
        {"source_kind": "snapshot", "commit": f"snapshot:{'a' * 64}"},
        {"source_kind": "path", "commit": f"tree:{'a' * 64}"},
        {"source_kind": "path"},
        {"location": "file:///nowhere/llama.cpp"},
        {"location": "not a URL"},
        {"location": ""},
        {"commit": "--upload-pack=x"},
        {"commit": ""},
    ],
)
def test_a_source_that_is_not_here_gives_nothing(
    home: Home, environ: dict[str, str], scratch: Scratch, plan: dict[str, str]
) -> None:
    commit = add_files(scratch, "src/llama-quant.cpp")
    mirrored(home, scratch.url, environ)
    build = build_of(home, **{"location": scratch.url, "commit": commit} | plan)

    assert quantizer_code(home, build, environ, SilentReporter()) == {}


def test_without_git_nothing_is_known(home: Home, environ: dict[str, str], scratch: Scratch, tmp_path: Path) -> None:
    commit = add_files(scratch, "src/llama-quant.cpp")
    mirrored(home, scratch.url, environ)

    bare = environ | {"PATH": str(tmp_path / "empty")}
    assert quantizer_code(home, build_of(home, scratch.url, commit), bare, SilentReporter()) == {}
