"""From recipes to defines: conditions, replacement, order, origin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_mgr.build.condition import filled, said
from llama_mgr.build.recipe import When
from llama_mgr.build.resolve import Resolved, matches, resolve
from llama_mgr.build.version_range import version_in
from llama_mgr.errors import IncompleteSourceError
from tests.tools.build_examples import HOST, recipe


class Files:
    """A tree of a few texts."""

    def __init__(self, **files: str) -> None:
        self._files = {name.replace("_txt", ".txt"): text for name, text in files.items()}

    def read(self, path: str) -> str | None:
        return self._files.get(path)

    def has(self, path: str) -> bool:
        return path in self._files


TREE = Files(CMakeLists_txt='option(GGML_CUDA "x" OFF)\noption(LLAMA_CURL)', readme="hello world")


def result(*texts: str, facts: dict[str, str] | None = None, overrides: dict[str, str] | None = None) -> Resolved:
    chain = [recipe(text, f"r{number}") for number, text in enumerate(texts, 1)]
    return resolve(chain, TREE, facts or {}, HOST, 4747, overrides or {})


def defines(*texts: str, facts: dict[str, str] | None = None) -> dict[str, str]:
    return {name: one.value for name, one in result(*texts, facts=facts).defines.items()}


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        (When(), True),
        (When(option="GGML_CUDA"), True),
        (When(option=["GGML_HIP", "GGML_CUDA"]), True),
        (When(option="GGML_HIP"), False),
        (When(no_option=["GGML_HIP", "GGML_CUDA"]), False),
        (When(no_option="GGML_HIP"), True),
        (When(file="readme"), True),
        (When(file="nothing"), False),
        (When(no_file="readme"), False),
        (When(no_file=["nothing"]), True),
        (When(text="readme::o w"), True),
        (When(text=["readme::bye", "nothing::x"]), False),
        (When(no_text="nothing::x"), True),
        (When(no_text="readme::hello"), False),
        (When(os="linux", machine=["amd64", "x86_64"]), True),
        (When(os=["darwin"]), False),
        (When(os="linux", option="GGML_HIP"), False),
        (When(fact={"a": "present", "b": "absent"}), True),
        (When(fact={"a": "absent"}), False),
        (When(fact={"b": "present"}), False),
        (When(fact={"a": ">=12,<13"}), True),
        (When(fact={"a": "<12"}), False),
        (When(fact={"b": "<12"}), False),
        (When(fact={"a": "=12.8"}), True),
        (When(fact={"a": "=12"}), False),
        (When(fact={"a": ">{c}"}), True),
        (When(fact={"a": ">{b}"}), False),
        (When(setting={"on": True}), True),
        (When(setting={"on": False}), False),
        (When(setting={"word": ["x", "y"]}), True),
        (When(setting={"unset": False}), True),
        (When(build=">=4747,<5000"), True),
        (When(build=">4747"), False),
    ],
)
def test_conditions(when: When, holds: bool) -> None:
    facts, settings = {"a": "12.8", "c": "11"}, {"on": True, "word": "y"}
    assert matches(when, TREE, facts, HOST, settings, 4747) is holds


def test_unknown_build_number_is_in_no_range() -> None:
    assert not matches(When(build=">=0"), TREE, {}, HOST, {}, 0)


@pytest.mark.parametrize(
    ("version", "wanted", "holds"),
    [
        ("12.8", ">=11.8,<12.8", False), ("12.6.85", ">=11.8,<12.8", True), ("12", ">=11.8", True),
        ("13.2.1", "<=13", True), ("13.2", ">13", False), ("6.2.41133-dd7f95766", ">=6.2", True),
        ("gcc 12.2.0 x86_64-linux-gnu", "==12", True), ("V9.10", ">9.9", True),
        ("none", ">0", False), ("3", "!=3", False),
    ],
)  # fmt: skip
def test_version_ranges(version: str, wanted: str, holds: bool) -> None:
    assert version_in(version, wanted) is holds


@given(st.lists(st.integers(0, 99), min_size=1, max_size=3), st.lists(st.integers(0, 99), min_size=1, max_size=3))
def test_a_version_is_below_or_not_below_a_limit(version: list[int], limit: list[int]) -> None:
    have, bound = (".".join(map(str, numbers)) for numbers in (version, limit))
    assert version_in(have, f"<{bound}") != version_in(have, f">={bound}")
    assert version_in(have, f"<={bound}") != version_in(have, f">{bound}")
    assert version_in(have, f"=={bound}") == (version_in(have, f">={bound}") and version_in(have, f"<={bound}"))


def test_values() -> None:
    text = '[[rule]]\ncmake = { A = true, B = false, C = 3, D = ["x", "{f}"], E = "{f}/lib", F = "$ORIGIN" }'
    assert defines(text, facts={"f": "/p"}) == {
        "A": "ON", "B": "OFF", "C": "3", "D": "x;/p", "E": "/p/lib", "F": "$ORIGIN"
    }  # fmt: skip


def test_absent_fact_drops_the_define_and_the_variable() -> None:
    text = '[[rule]]\ncmake = { A = "{gone}", B = ["x", "{gone}"], C = "c" }\nenv = { D = "{gone}", E = "e" }'
    found = result(text)
    assert list(found.defines) == ["C"]
    assert list(found.environ) == ["E"]


def test_suffix_on_every_element() -> None:
    assert filled("{gpu.archs:-real}", {"gpu.archs": "86;120"}) == "86-real;120-real"
    assert filled("{gpu.archs:-real}", {}) is None
    assert filled("{1} and {}", {}) == "{1} and {}"


def test_later_rules_override_append_and_drop() -> None:
    first = '[[rule]]\ncmake = { A = 1, B = 1, P = ["x"] }'
    second = '[[rule]]\ncmake = { A = 2 }\ndrop = ["B"]\nappend = { P = ["y", "x", "{gone}"], Q = ["{gone}"] }'
    assert defines(first, second) == {"A": "2", "P": "x;y"}


def test_origins() -> None:
    found = result(
        '[[rule]]\ncmake = { A = 1 }\n[[rule]]\nwhen = { option = "GGML_CUDA" }\ncmake = { B = 1 }',
        overrides={"C": "x"},
    )
    assert found.defines["A"].origin == "r1, rule 1"
    assert found.defines["B"].origin == "r1, rule 2 (option GGML_CUDA)"
    assert found.defines["C"].origin == "--define"
    assert (
        said(When(fact={"a": "present"}, setting={"b": False}, no_file=["x", "y"])) == "no-file x|…, a present, b false"
    )


def test_the_users_defines_win_and_can_be_asked_for() -> None:
    asked = '[[rule]]\nwhen = { fact = { "define.A" = "present" } }\ncmake = { B = "{define.A}" }'
    text = f"[[rule]]\ncmake = {{ A = 1 }}\n{asked}"
    found = result(text, overrides={"A": "mine"})
    assert {name: one.value for name, one in found.defines.items()} == {"A": "mine", "B": "mine"}


def test_flags_of_the_user_join_those_of_a_recipe() -> None:
    text = 'cmake = { CMAKE_CXX_FLAGS = "-mno-amx-tile", CMAKE_CXX_STANDARD = "17" }'
    found = result(f"[[rule]]\n{text}", overrides={"CMAKE_CXX_FLAGS": "-g", "CMAKE_CXX_STANDARD": "20"}).defines
    assert found["CMAKE_CXX_FLAGS"].value == "-mno-amx-tile -g"
    assert found["CMAKE_CXX_FLAGS"].origin.endswith("; --define")
    assert found["CMAKE_CXX_STANDARD"].value == "20"


def test_environment_of_a_vendor_is_inherited_unless_a_rule_sets_it() -> None:
    text = 'inherit-environ = ["ROOT", "HOME_OF_IT", "GONE"]\n[[rule]]\nenv = { ROOT = "ours" }'
    found = result(text, facts={"env.ROOT": "theirs", "env.HOME_OF_IT": "/h"}).environ
    assert {name: (one.value, one.origin) for name, one in found.items()} == {
        "ROOT": ("ours", "r1, rule 1"), "HOME_OF_IT": ("/h", "environment")
    }  # fmt: skip


def test_fallback_architectures_only_without_found_ones() -> None:
    text = """
gpu.fallback = [{ when = { option = "GONE" }, value = "0" }, { value = "75;86" }]
[[rule]]
cmake = { ARCHS = "{gpu.archs}" }"""
    assert defines(text) == {"ARCHS": "75;86"}
    assert defines(text, facts={"gpu.archs": "120"}) == {"ARCHS": "120"}


def test_settings_of_later_recipes_win_for_all() -> None:
    rule = '[[rule]]\nwhen = { setting = { fast = true } }\ncmake = { F = "{setting.kind}" }'
    first = f'[settings]\nfast = false\nkind = "a"\n{rule}'
    assert defines(first) == {}
    assert defines(first, '[settings]\nfast = true\nkind = "b"') == {"F": "b"}


def test_need() -> None:
    text = '[[need]]\nhas = { option = ["GGML_HIP", "GGML_HIPBLAS"] }\nwhy = "this llama.cpp has no HIP"'
    with pytest.raises(IncompleteSourceError, match=r"'r1': this llama\.cpp has no HIP") as caught:
        result(text)
    assert caught.value.hint == "looked for GGML_HIP or GGML_HIPBLAS"
    assert result(text + '\nwhen = { os = "darwin" }').defines == {}


def test_numbers_targets_and_words_of_the_chain() -> None:
    chain = [
        recipe("job-memory-mib = 1\ndisk-mib = 9\n[targets]\na = ['x']\nb = ['y']", "base", hidden=True),
        recipe("job-memory-mib = 5", "parent", hidden=True),
        recipe("job-memory-mib = 3\ndevice-prefix = 'M'\n[targets]\nb = ['z']", "main"),
        recipe("job-memory-mib = 4\ndisk-mib = 2\ndevice-prefix = 'P'", "behind", part=True, hidden=True),
        recipe("", "part", part=True),
    ]
    found = resolve(chain, TREE, {}, HOST, 0, {})
    assert (found.recipe, found.parts, found.device_prefix) == ("main", ("part",), "M")
    assert (found.job_memory_mib, found.disk_mib) == (4, 9)
    assert found.targets == {"a": ["x"], "b": ["z"]}


def test_converter_is_overridden_key_by_key() -> None:
    found = result("[convert]\nscripts = ['a']\nkeep = ['k']", "[convert]\nscripts = ['b']").convert
    assert (found.scripts, found.keep) == (["b"], ["k"])


def test_failures_of_the_special_recipe_come_first_with_facts_in_their_words() -> None:
    base = "[[failure]]\nmatch = 'a'\ncause = 'base'\nfix = ''"
    special = "[[failure]]\nmatch = 'a'\ncause = 'nvcc {tool.nvcc.version} and {1}'\nfix = '{cuda.root}'"
    found = result(base, special, facts={"tool.nvcc.version": "12.6"}).failures
    assert [one.cause for one in found] == ["nvcc 12.6 and {1}", "base"]
    assert found[0].fix == "root"


def test_only_checks_that_apply_are_kept() -> None:
    text = """
[[verify.configure-log]]
must = 'new'
when = { option = "GGML_CUDA" }
[[verify.configure-log]]
must = 'old'
when = { no-option = "GGML_CUDA" }
[[verify.artifacts]]
glob = 'x'
when = { build = "<4747" }
[[verify.devices]]
pattern = 'y'"""
    verify = result(text).verify
    assert [one.must for one in verify.configure_log] == ["new"]
    assert verify.artifacts == []
    assert [one.pattern for one in verify.devices] == ["y"]


@pytest.mark.parametrize(
    ("given_defines", "native"),
    [
        ({"GGML_NATIVE": "ON"}, True), ({"GGML_NATIVE": "OFF"}, False), ({"LLAMA_NATIVE": "yes"}, True), ({}, False),
        ({"CMAKE_C_FLAGS": "-O2 -march=native"}, True), ({"CMAKE_CXX_FLAGS": "-mcpu=native"}, True),
        ({"CMAKE_C_FLAGS": "-march=x86-64-v3"}, False),
    ],
)  # fmt: skip
def test_native(given_defines: dict[str, str], native: bool) -> None:
    assert result("", overrides=given_defines).is_native is native


def test_first_build_info_file_that_exists() -> None:
    text = '[[rule]]\npatch-build-info = ["gone", "readme", "CMakeLists.txt"]'
    assert result(text).patch_build_info == "readme"
