"""Which code of a converter counts for an architecture, on small converters of both forms that upstream has had."""

from pathlib import Path

import msgspec
import pytest

from llama_mgr.make.converter_code import Change, ConverterCode, changes, converter_code
from tests.tools.small_converter import BASE, LLAMA, MAPS, PACKAGE, single_file
from tests.tools.tiny_repository import TINY_DIR

LLAMA_UNITS = {
    "conversion/llama.py:LlamaModel",
    "conversion/llama.py:LlamaModel.set_vocab",
    "conversion/llama.py:LlamaModel.modify_tensors",
    "conversion/llama.py:LlamaModel.permute",
}
BASE_UNITS = {
    "conversion/base.py:ModelBase",
    "conversion/base.py:ModelBase.write",
    "conversion/base.py:TextModel",
    "conversion/base.py:TextModel.get_vocab_base_pre",
}


def code(
    root: Path, files: dict[str, str], *architectures: str, mmproj: bool = False, **replaced: str
) -> ConverterCode:
    """The code of the converter with these files; each of `replaced` is `old` and `new` text for all of them."""
    directory = root / f"converter-{len(list(root.iterdir()))}"
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(replaced["old"], replaced["new"]) if replaced else text)
    if replaced:
        assert any(replaced["old"] in text for text in files.values())
    return converter_code(directory, architectures or ["LlamaForCausalLM"], mmproj=mmproj)


def test_a_package_gives_the_methods_of_a_class_and_of_its_ancestors(tmp_path: Path) -> None:
    found = code(tmp_path, PACKAGE)

    assert found.units.keys() == LLAMA_UNITS | BASE_UNITS | {
        "conversion/ropes.py:turned", "conversion/ropes.py:ANGLE",
    }  # fmt: skip
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in found.units.values())
    assert (found.pre_tokenizers, found.unknown, found.shared_by_class) == (2, "", False)


@pytest.mark.parametrize("script", ["convert_hf_to_gguf.py", "convert-hf-to-gguf.py"])
def test_a_single_script_gives_them_too(tmp_path: Path, script: str) -> None:
    found = code(tmp_path, single_file(script=script))

    assert found.units.keys() == {f"{script}:{unit.partition(':')[2]}" for unit in LLAMA_UNITS | BASE_UNITS}
    assert found.pre_tokenizers == 2


def test_what_a_side_car_keeps_is_what_was_found(tmp_path: Path) -> None:
    found = code(tmp_path, PACKAGE)

    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(found)), ConverterCode) == found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "self.permute(data_torch, 2)",
            "self.permute(\n                data_torch,\n                2,\n            )",
        ),
        ("        if name.endswith", "        # Rotary embeddings.\n        if name.endswith"),
        ("    model_arch =", '    """Llama and its children."""\n\n    model_arch ='),
        ('"""Write it."""', '"""Write the whole of it."""'),
        ("name: str)", "name: bytes) -> object"),
        ("    model_arch =", "    block_count: int\n    model_arch ="),
        ('logger.info("modify")', 'logger.debug("modify %s", name)'),
        ('    model_arch = "llama"', '    model_arch: str = "llama"'),
        ('@ModelBase.register("LlamaForCausalLM")', '@ModelBase.register("LlamaForCausalLM", "OtherForCausalLM")'),
        ("return data\n", "return data * 2\n"),
        ('"MistralForCausalLM": "mistral"', '"MistralForCausalLM": "mistral", "NewForCausalLM": "new"'),
    ],
)
def test_what_changes_no_file_is_no_change(tmp_path: Path, old: str, new: str) -> None:
    assert changes(code(tmp_path, PACKAGE), code(tmp_path, PACKAGE, old=old, new=new)) == ()


@pytest.mark.parametrize(
    ("old", "new", "unit", "weight"),
    [
        ("_set_vocab_sentencepiece", "_set_vocab_gpt2", "conversion/llama.py:LlamaModel.set_vocab", "architecture"),
        ('model_arch = "llama"', 'model_arch = "llama4"', "conversion/llama.py:LlamaModel", "architecture"),
        ("    @staticmethod\n", "", "conversion/llama.py:LlamaModel.permute", "architecture"),
        ("data * ANGLE", "data + ANGLE", "conversion/ropes.py:turned", "architecture"),
        ("ANGLE = 90", "ANGLE = 45", "conversion/ropes.py:ANGLE", "architecture"),
        ("self.prepare_tensors()", "self.prepare()", "conversion/base.py:ModelBase.write", "shared"),
        ("res = None", "res = ''", "conversion/base.py:TextModel.get_vocab_base_pre", "shared"),
    ],
)
def test_other_code_is_a_change_of_its_unit(tmp_path: Path, old: str, new: str, unit: str, weight: str) -> None:
    (change,) = changes(code(tmp_path, PACKAGE), code(tmp_path, PACKAGE, old=old, new=new))

    assert (change.unit, change.kind, change.weight) == (unit, "changed", weight)


def test_the_common_classes_of_a_single_script_are_shared_too(tmp_path: Path) -> None:
    before = code(tmp_path, single_file())
    (change,) = changes(before, code(tmp_path, single_file(), old="self.prepare_tensors()", new="self.prepare()"))

    assert change == Change("convert_hf_to_gguf.py:ModelBase.write", "changed", "shared")


def test_a_function_beside_the_common_classes_is_shared(tmp_path: Path) -> None:
    files = PACKAGE | {
        "conversion/base.py": f"{BASE}\n\ndef halved(data):\n    return data / 2\n",
        "conversion/llama.py": LLAMA.replace("logger\n", "halved\n").replace("ropes.turned(", "halved("),
    }
    (change,) = changes(code(tmp_path, files), code(tmp_path, files, old="data / 2", new="data // 2"))

    assert change == Change("conversion/base.py:halved", "changed", "shared")


def test_the_maps_of_all_architectures_are_not_followed(tmp_path: Path) -> None:
    chooser = "\n\ndef chosen(name):\n    return TEXT_MODEL_MAP[name]\n"
    files = PACKAGE | {
        "conversion/__init__.py": PACKAGE["conversion/__init__.py"] + chooser,
        "conversion/llama.py": LLAMA.replace("import ropes", "import chosen").replace("ropes.turned(", "chosen("),
    }
    after = code(tmp_path, files, old='{"LlamaForCausalLM"', new='{"NewForCausalLM": "new", "LlamaForCausalLM"')

    assert changes(code(tmp_path, files), after) == ()


def test_methods_come_and_go(tmp_path: Path) -> None:
    before = code(tmp_path, PACKAGE)
    after = code(tmp_path, PACKAGE, old="def set_vocab", new="def set_words")

    assert changes(before, after) == (
        Change("conversion/llama.py:LlamaModel.set_vocab", "removed", "architecture"),
        Change("conversion/llama.py:LlamaModel.set_words", "added", "architecture"),
    )


def test_changes_of_the_architecture_come_first(tmp_path: Path) -> None:
    found = changes(code(tmp_path, PACKAGE), code(tmp_path, PACKAGE, old="(self", new="(self, more"))

    assert [one.weight for one in found] == ["architecture"] * 2 + ["shared"] * 2


@pytest.mark.parametrize("files", [PACKAGE, single_file()], ids=["package", "script"])
def test_a_new_tokenizer_is_counted_and_is_no_change(tmp_path: Path, files: dict[str, str]) -> None:
    entry = '        if chkhsh == "cafe":\n            res = "qwen2"\n        if res is None'
    before, after = code(tmp_path, files), code(tmp_path, files, old="        if res is None", new=entry)

    assert changes(before, after) == ()
    assert (before.pre_tokenizers, after.pre_tokenizers) == (2, 3)


def test_an_ancestor_in_another_module_is_found_through_imports(tmp_path: Path) -> None:
    before = code(tmp_path, PACKAGE, "MistralForCausalLM")
    after = code(tmp_path, PACKAGE, "MistralForCausalLM", old="reshape(n_head, 2)", new="reshape(2, n_head)")

    assert LLAMA_UNITS | BASE_UNITS | {"conversion/mistral.py:MistralModel.set_vocab"} < before.units.keys()
    assert changes(before, after) == (Change("conversion/llama.py:LlamaModel.permute", "changed", "architecture"),)


@pytest.mark.parametrize(
    ("line", "base"),
    [
        ("from . import TextModel", "TextModel"),
        ("from conversion import base", "base.TextModel"),
        ("import conversion.base as b", "b.TextModel"),
        ("import conversion.base", "conversion.base.TextModel"),
        ("if True:\n    from .base import TextModel", "TextModel"),
        ("try:\n    from .base import TextModel\nexcept ImportError:\n    pass", "TextModel"),
    ],
)
def test_every_form_of_import_is_followed(tmp_path: Path, line: str, base: str) -> None:
    llama = f'{line}\n\n\n@ModelBase.register("LlamaForCausalLM")\nclass LlamaModel({base}):\n    pass\n'

    found = code(tmp_path, PACKAGE | {"conversion/llama.py": llama})

    assert found.units.keys() == {"conversion/llama.py:LlamaModel"} | BASE_UNITS


def test_a_method_that_another_class_lends_counts_alone(tmp_path: Path) -> None:
    found = code(tmp_path, PACKAGE, "SeeModel", mmproj=True)

    assert {unit for unit in found.units if "llama.py" in unit} == {"conversion/llama.py:LlamaModel.permute"}


def test_a_projector_and_its_language_model_have_code_of_their_own(tmp_path: Path) -> None:
    text, vision = code(tmp_path, PACKAGE, "SeeModel"), code(tmp_path, PACKAGE, "SeeModel", mmproj=True)

    assert "conversion/see.py:SeeTextModel" in text.units
    assert "conversion/base.py:MmprojModel.find_vparam" in vision.units
    assert not {unit for unit in text.units if "Vision" in unit or "Mmproj" in unit}
    assert not {unit for unit in vision.units if "Text" in unit}


def test_a_class_inside_a_class_brings_its_ancestors(tmp_path: Path) -> None:
    outer = (
        'from .base import ModelBase\nfrom .mistral import MistralModel\n\n\n@ModelBase.register("LlamaForCausalLM")\n'
        "class Chooser:\n    class Inner(MistralModel):\n        pass\n"
    )

    found = code(tmp_path, PACKAGE | {"conversion/llama.py": outer + LLAMA.replace("@ModelBase", "# @ModelBase")})

    assert {"conversion/mistral.py:MistralModel.set_vocab", "conversion/llama.py:Chooser"} < found.units.keys()


def test_circles_end(tmp_path: Path) -> None:
    one = 'from .mistral import Two\n\n\n@ModelBase.register("LlamaForCausalLM")\nclass One(Two):\n    pass\n'
    two = "from .llama import One\nfrom .ropes import turned\n\n\nclass Two(One):\n    a = turned(One.a)\n"
    ropes = "from .see import turned\n"
    see = "from .ropes import turned\n"

    found = code(
        tmp_path,
        PACKAGE
        | {
            "conversion/llama.py": one,
            "conversion/mistral.py": two,
            "conversion/ropes.py": ropes,
            "conversion/see.py": see,
        },
    )

    assert found.units.keys() == {"conversion/llama.py:One", "conversion/mistral.py:Two"}


def test_two_definitions_of_one_method_are_one_unit(tmp_path: Path) -> None:
    reads = "    @property\n    def size(self):\n        return 1\n\n"
    writes = "    @size.setter\n    def size(self, to):\n        self.to = to\n"
    files = PACKAGE | {"conversion/llama.py": LLAMA + "\n" + reads + writes}

    (change,) = changes(code(tmp_path, files), code(tmp_path, files, old="return 1\n", new="return 2\n"))

    assert change.unit == "conversion/llama.py:LlamaModel.size"


def test_what_moved_into_the_package_has_not_changed(tmp_path: Path) -> None:
    script = single_file(script="convert-hf-to-gguf.py")
    package = PACKAGE | {"conversion/llama.py": LLAMA.replace("ropes.turned(data_torch)", "data_torch")}
    script["convert-hf-to-gguf.py"] = script["convert-hf-to-gguf.py"].replace("ropes.turned(data_torch)", "data_torch")

    assert changes(code(tmp_path, script), code(tmp_path, package)) == ()
    (change,) = changes(code(tmp_path, script), code(tmp_path, package, old="sentencepiece", new="gpt2"))
    assert change == Change("conversion/llama.py:LlamaModel.set_vocab", "changed", "architecture")


def many_methods(count: int) -> dict[str, str]:
    methods = "".join(
        f"\n    def a_method_with_a_name_{index}(self):\n        return {index}\n" for index in range(count)
    )
    return PACKAGE | {"conversion/base.py": BASE.replace("class MmprojModel", f"{methods}\n\nclass MmprojModel")}


def test_a_large_converter_has_one_digest_for_each_common_class(tmp_path: Path) -> None:
    found = code(tmp_path, many_methods(200))

    assert found.shared_by_class
    assert found.units.keys() >= LLAMA_UNITS | {"conversion/base.py:TextModel", "conversion/base.py:ModelBase"}
    assert len(msgspec.json.encode(found)) < 12 * 1024
    assert not {unit for unit in found.units if "base.py" in unit and "." in unit.partition(":")[2]}


def test_a_large_converter_is_compared_with_a_small_one_by_class(tmp_path: Path) -> None:
    small, large = code(tmp_path, PACKAGE), code(tmp_path, many_methods(200))

    text_model = Change("conversion/base.py:TextModel", "changed", "shared")
    assert changes(small, large) == changes(large, small) == (text_model,)
    assert changes(large, code(tmp_path, many_methods(200))) == ()


def test_an_architecture_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    found = code(tmp_path, PACKAGE, "NobodyForCausalLM")

    assert found.units == {}
    assert found.unknown == "convert_hf_to_gguf.py has no code for NobodyForCausalLM"
    assert "names no architecture" in converter_code(tmp_path / "converter-0", []).unknown


def test_no_converter_is_unknown(tmp_path: Path) -> None:
    assert converter_code(tmp_path / "absent", ["LlamaForCausalLM"]) == ConverterCode(unknown="there is no converter")


@pytest.mark.parametrize("file", ["conversion/llama.py", "conversion/base.py", "conversion/__init__.py"])
@pytest.mark.parametrize("text", ["class (:\n", "\0", "x = " + "(" * 500, "x = " + "-" * 20000 + "1\n"])
def test_what_is_no_python_gives_nothing(tmp_path: Path, file: str, text: str) -> None:
    found = code(tmp_path, PACKAGE | {file: text})

    assert found.units == {}
    assert found.unknown == f"{file} of the converter cannot be read"


def test_code_that_is_nested_too_deeply_gives_nothing(tmp_path: Path) -> None:
    found = code(tmp_path, PACKAGE | {"conversion/llama.py": LLAMA.replace('"llama"', "0" + "+1" * 900)})

    assert found.units == {}
    assert "too involved" in found.unknown


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    found = code(tmp_path, PACKAGE)
    with (tmp_path / "converter-0" / "conversion" / "llama.py").open("a") as file:
        file.write("#" * 16 * 1024 * 1024)

    assert found.units
    assert (
        "llama.py of the converter cannot be read"
        in converter_code(tmp_path / "converter-0", ["LlamaForCausalLM"]).unknown
    )


@pytest.mark.parametrize("module", ["../../outside", "/etc/outside", "..", "", "."])
def test_a_map_leads_nowhere_else(tmp_path: Path, module: str) -> None:
    (tmp_path / "outside.py").write_text(LLAMA)
    maps = MAPS.replace('"LlamaForCausalLM": "llama"', f'"LlamaForCausalLM": "{module}"')

    assert code(tmp_path, PACKAGE | {"conversion/__init__.py": maps}).units == {}


def test_the_converter_of_the_tiny_project_counts_as_whole_modules(tmp_path: Path) -> None:
    # It registers no classes: what the map of its package names is all that there is.
    found = converter_code(TINY_DIR, ["LlamaForCausalLM"])
    files = {name: (TINY_DIR / name).read_text() for name in ("convert_hf_to_gguf.py", "conversion/__init__.py")}
    llama = (TINY_DIR / "conversion" / "llama.py").read_text()

    assert found.units.keys() == {"conversion/llama.py"}
    assert changes(found, code(tmp_path, files | {"conversion/llama.py": f"# new\n{llama}"})) == ()
    (change,) = changes(found, code(tmp_path, files | {"conversion/llama.py": f"{llama}MORE = 1\n"}))
    assert change == Change("conversion/llama.py", "changed", "architecture")
    assert "has no code for Qwen2ForCausalLM" in converter_code(TINY_DIR, ["Qwen2ForCausalLM"]).unknown
