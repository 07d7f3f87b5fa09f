"""Recipes: found, inherited, shadowed, refused."""

from pathlib import Path

import pytest

from llama_mgr.build.recipe import Recipes
from llama_mgr.errors import BadConfigError, BadInputError, BadNameError, NewerStateError, UnknownRecipeError
from llama_mgr.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "recipes").mkdir()
    return Home(tmp_path)


def write(home: Home, name: str, text: str = "") -> Path:
    path = home.recipes_dir / f"{name}.toml"
    path.write_text(f'schema = 1\nname = "{name}"\ntitle = "{name}"\n{text}')
    return path


def names(home: Home, name: str, *parts: str) -> list[str]:
    return [recipe.name for recipe in Recipes(home).chain(name, list(parts))]


def test_shipped_recipes_are_listed_without_base_and_parts(home: Home) -> None:
    listed = Recipes(home).names()
    assert {"cpu", "cpu-portable", "cuda", "rocm", "metal", "vulkan", "sycl", "opencl", "blas", "musa", "cann"} == set(
        listed
    )
    assert Recipes(home).part_names() == ["rpc"]


def test_base_comes_first_and_parts_last(home: Home) -> None:
    assert names(home, "cpu-portable", "rpc", "blas") == ["base", "cpu", "cpu-portable", "rpc", "blas"]
    chain = Recipes(home).chain("cpu-portable", ["blas"])
    assert [(recipe.hidden, recipe.part) for recipe in chain] == [
        (True, False), (True, False), (False, False), (False, True)
    ]  # fmt: skip


def test_a_recipe_given_twice_counts_once(home: Home) -> None:
    assert names(home, "cuda", "rpc", "rpc", "cuda") == ["base", "cuda", "rpc"]


def test_users_recipe_takes_the_place_of_a_shipped_one(home: Home) -> None:
    path = write(home, "cuda", 'inherits = "builtin:cuda"\n[settings]\nnccl = true\n')
    recipes = Recipes(home)
    assert recipes.origin("cuda") == path
    assert recipes.origin("builtin:cuda") == "builtin"
    assert recipes.origin("cpu") == "builtin"
    assert names(home, "cuda") == ["base", "cuda", "cuda"]
    assert [recipe.settings.get("nccl") for recipe in recipes.chain("cuda")] == [None, False, True]


def test_inheriting_a_shipped_recipe_that_is_shadowed(home: Home) -> None:
    write(home, "cuda", "job-memory-mib = 1")
    write(home, "mine", 'inherits = "builtin:cuda"')
    write(home, "other", 'inherits = "cuda"')
    assert Recipes(home).chain("mine")[1].job_memory_mib == 3072
    assert Recipes(home).chain("other")[1].job_memory_mib == 1


def test_circles_are_refused_with_the_way_out(home: Home) -> None:
    write(home, "cuda", 'inherits = "cuda"')
    with pytest.raises(BadConfigError, match="circle: cuda → cuda") as caught:
        Recipes(home).chain("cuda")
    assert caught.value.hint == 'write inherits = "builtin:cuda"'
    write(home, "a", 'inherits = "b"')
    write(home, "b", 'inherits = "a"')
    with pytest.raises(BadConfigError, match="circle: a → b → a"):
        Recipes(home).chain("a")


def test_part_is_not_built_alone(home: Home) -> None:
    with pytest.raises(BadInputError, match="it is a part") as caught:
        Recipes(home).chain("rpc")
    assert caught.value.hint == "use for example --arch cpu --with rpc"


@pytest.mark.parametrize("arguments", [("base",), ("cpu", ["base"])])
def test_base_is_not_chosen(home: Home, arguments: tuple[str, list[str]]) -> None:
    with pytest.raises(BadInputError, match="build on"):
        Recipes(home).chain(*arguments)


def test_unknown_recipe_names_the_nearest(home: Home) -> None:
    with pytest.raises(UnknownRecipeError) as caught:
        Recipes(home).find("vulcan")
    assert caught.value.hint == "did you mean 'vulkan'?"
    write(home, "mine", 'inherits = "gone"')
    with pytest.raises(UnknownRecipeError, match="gone"):
        Recipes(home).chain("mine")
    write(home, "only-mine")
    with pytest.raises(UnknownRecipeError):
        Recipes(home).find("builtin:only-mine")


@pytest.mark.parametrize("name", ["../cpu", "", "CPU", "a/b", "builtin:"])
def test_names_that_are_no_names(home: Home, name: str) -> None:
    with pytest.raises(BadNameError):
        Recipes(home).find(name)


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("[[rule]]\ncmak = {}", "unknown key 'rule[0].cmak'", "did you mean 'cmake'?"),
        ("[[rule]]\nwhen = { options = 'X' }", "unknown key 'rule[0].when.options'", "did you mean 'option'?"),
        ("job-memory-mb = 1", "unknown key 'job-memory-mb'", "did you mean 'job-memory-mib'?"),
        ("[[rule]]\ncmake = 3", "rule[0].cmake: expected `object`", None),
        ("[[failure]]\nmatch = '('\ncause = ''\nfix = ''", "match: missing )", None),
        ("[[rule]]\nwhen = { build = '4167+' }", "build: '4167+' is not a version range", None),
        ("[[rule]]\ncmake = { 'A B' = 1 }", "'A B' cannot be the name of a define", None),
        ("inherits = '../x'", "inherits: expected `str` matching regex", None),
    ],
)
def test_mistakes_are_pointed_at(home: Home, text: str, why: str, hint: str | None) -> None:
    write(home, "mine", text)
    with pytest.raises(BadConfigError) as caught:
        Recipes(home).find("mine")
    assert why in caught.value.message
    assert str(home.recipes_dir / "mine.toml") in caught.value.message
    assert caught.value.hint == hint


def test_name_must_be_the_files(home: Home) -> None:
    write(home, "mine").rename(home.recipes_dir / "yours.toml")
    with pytest.raises(BadConfigError, match="its name must be 'yours'"):
        Recipes(home).find("yours")


def test_newer_schema(home: Home) -> None:
    (home.recipes_dir / "mine.toml").write_text('schema = 2\nname = "mine"\ntitle = ""\n')
    with pytest.raises(NewerStateError):
        Recipes(home).find("mine")


def test_damaged_file_is_still_listed(home: Home) -> None:
    (home.recipes_dir / "mine.toml").write_text("=")
    (home.recipes_dir / "Not a name.toml").write_text("")
    assert "mine" in Recipes(home).names()
    assert "Not a name" not in Recipes(home).names()
