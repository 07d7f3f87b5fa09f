"""Models of the library against the code of a build: only those made here are judged, each by its own steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llama_mgr.make.converter_code import converter_code
from llama_mgr.make.outdated import Judged, judged
from llama_mgr.make.provenance import Provenance
from llama_mgr.make.staleness import Staleness
from llama_mgr.paths import Home
from tests.tools.made_models import BUILD, SOURCE, made_by, model_of, put_made, workshop_of
from tests.tools.model_library import catalog_of, put, put_recorded
from tests.tools.small_converter import PACKAGE

NOW, BEFORE = "7" * 40, "6" * 40
CHANGED = {**PACKAGE, "conversion/llama.py": PACKAGE["conversion/llama.py"].replace("return", "return 1 +", 1)}


def code_of(tmp_path: Path, files: Mapping[str, str], *architectures: str, mmproj: bool = False) -> dict[str, Any]:
    """What a side-car keeps of a converter with these files."""
    for name, text in files.items():
        put(tmp_path / "old" / name, text.encode())
    found = converter_code(tmp_path / "old", architectures or ["LlamaForCausalLM"], mmproj=mmproj)
    assert not found.unknown
    return {"converter": msgspec.to_builtins(found)}


def by(commit: str, version: str = "b6") -> Any:  # noqa: ANN401
    return msgspec.structs.replace(BUILD, commit=commit, version=version, build_id=f"{version}-cpu-0123abcd")


def converted(commit: str, code: dict[str, Any], *architectures: str, **options: Any) -> Provenance:  # noqa: ANN401
    asked = {"architectures": list(architectures or ["LlamaForCausalLM"]), **options}
    return made_by("convert", "c" * 64, build=by(commit), source=SOURCE, options=asked, code=code)


def judge(home: Home, environ: Mapping[str, str], made: Provenance, **workshop: Any) -> Judged:  # noqa: ANN401
    put_made(home.models_dir / "owner/tiny/tiny-Q4_K_M.gguf", made)
    with workshop_of(home, environ, **{"commit": NOW, "converter": CHANGED, **workshop}) as opened:
        (one,) = judged(opened, catalog_of(home).models)
    return one


def test_models_of_others_are_left_out(home: Home, environ: Mapping[str, str]) -> None:
    put(home.models_dir / "a/bare/bare-Q4_K_M.gguf", model_of(seed=1))
    pulled = home.models_dir / "a/pulled/pulled-Q4_K_M.gguf"
    put_recorded(pulled, model_of(seed=2), repo="a/pulled", revision="1" * 40)
    put_made(home.models_dir / "a/made/made-Q4_K_M.gguf", converted(NOW, {}))
    with workshop_of(home, environ, commit=NOW) as opened:
        models = catalog_of(home).models
        assert len(models) == 3
        assert [one.model.key for one in judged(opened, models)] == ["a/made:Q4_K_M"]
        assert judged(opened, []) == []


def test_the_same_build_makes_the_same(home: Home, environ: Mapping[str, str]) -> None:
    made = made_by("quantize", build=by(NOW), parent=converted(NOW, {}))
    one = judge(home, environ, made)
    assert (one.made, one.staleness) == (made, Staleness("fresh"))
    assert one.made_by == "b6-cpu-0123abcd"


def test_a_converter_that_changed_for_the_architecture_makes_a_model_stale(
    home: Home, environ: Mapping[str, str], tmp_path: Path
) -> None:
    made = converted(BEFORE, code_of(tmp_path, PACKAGE))
    one = judge(home, environ, made)
    assert one.staleness.state == "stale"
    assert all("LlamaModel" in reason and "since b6" in reason for reason in one.staleness.reasons)
    assert judge(home, environ, made, converter=PACKAGE).staleness == Staleness("fresh")


def test_a_converter_that_changed_for_another_architecture_does_not(
    home: Home, environ: Mapping[str, str], tmp_path: Path
) -> None:
    changed = {**PACKAGE, "conversion/see.py": PACKAGE["conversion/see.py"].replace(", 4)", ", 5)")}
    assert changed != PACKAGE
    made = converted(BEFORE, code_of(tmp_path, PACKAGE))
    assert judge(home, environ, made, converter=changed).staleness == Staleness("fresh")
    see = converted(BEFORE, code_of(tmp_path, PACKAGE, "SeeModel", mmproj=True), "SeeModel", mmproj=True)
    assert judge(home, environ, see, converter=changed).staleness.state == "stale"
    assert judge(home, environ, see, converter=PACKAGE).staleness == Staleness("fresh")


def test_a_quantizer_of_another_build_that_cannot_be_compared_is_unknown(
    home: Home, environ: Mapping[str, str]
) -> None:
    made = made_by("quantize", build=by(BEFORE), parent=converted(NOW, {}), code={"quantizer": {"a.c": "1" * 40}})
    one = judge(home, environ, made)
    assert one.staleness.state == "unknown"
    assert "quantizer" in one.staleness.reasons[0]


def test_a_build_without_converter_tells_nothing_of_it(home: Home, environ: Mapping[str, str], tmp_path: Path) -> None:
    made = converted(BEFORE, code_of(tmp_path, PACKAGE))
    one = judge(home, environ, made, converter=None)
    assert one.staleness.state == "unknown"
    assert "converter" in one.staleness.reasons[0]


@pytest.mark.parametrize("code", [{}, {"converter": 5}, {"converter": {"units": [1]}}, {"converter": None}])
def test_a_record_without_sound_code_is_unknown(home: Home, environ: Mapping[str, str], code: dict[str, Any]) -> None:
    assert judge(home, environ, converted(BEFORE, code)).staleness.state == "unknown"


@pytest.mark.parametrize("code", [{}, {"quantizer": 5}, {"quantizer": {"a.c": 1}}])
def test_a_record_without_sound_quantizer_is_unknown(
    home: Home, environ: Mapping[str, str], code: dict[str, Any]
) -> None:
    made = made_by("quantize", build=by(BEFORE), code=code)
    assert judge(home, environ, made).staleness.state == "unknown"


def test_steps_that_change_no_weights_do_not_count(home: Home, environ: Mapping[str, str]) -> None:
    quantized = made_by("quantize", build=by(NOW), parent=converted(NOW, {}))
    split = made_by("split", build=by(BEFORE, "b5"), parent=quantized)
    one = judge(home, environ, split)
    assert one.staleness == Staleness("fresh")
    assert one.made_by == "b6-cpu-0123abcd"


def test_both_builds_are_named_where_they_differ_and_changes_count_from_the_converter(
    home: Home, environ: Mapping[str, str], tmp_path: Path
) -> None:
    made = made_by("quantize", build=by(NOW, "b7"), parent=converted(BEFORE, code_of(tmp_path, PACKAGE)))
    one = judge(home, environ, made)
    assert one.made_by == "b6-cpu-0123abcd, b7-cpu-0123abcd"
    assert one.staleness.state == "stale"
    assert all(reason.endswith("since b6") for reason in one.staleness.reasons)


def test_the_code_for_one_architecture_is_read_once_for_all_quants(
    home: Home, environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, asked = code_of(tmp_path, PACKAGE), list[object]()
    for quant in ("Q4_K_M", "Q8_0", "Q6_K"):
        put_made(home.models_dir / f"owner/tiny/tiny-{quant}.gguf", converted(BEFORE, code), model_of(quant))
    other = home.models_dir / "owner/other/other-Q4_K_M.gguf"
    put_made(other, converted(BEFORE, code, "MistralForCausalLM"), model_of(seed=1))

    def noted(*words: Any, **options: Any) -> object:  # noqa: ANN401
        asked.append(words[1])
        return converter_code(*words, **options)

    monkeypatch.setattr("llama_mgr.make.outdated.converter_code", noted)
    with workshop_of(home, environ, commit=NOW, converter=PACKAGE) as opened:
        assert len(judged(opened, catalog_of(home).models)) == 4
    assert sorted(map(str, asked)) == ["('LlamaForCausalLM',)", "('MistralForCausalLM',)"]
