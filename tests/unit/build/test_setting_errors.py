"""What is wrong with settings, and what helps."""

import pytest

from llama_mgr.build.setting_errors import require_usable, setting_errors
from llama_mgr.errors import BadConfigError, LlamaMgrError
from llama_mgr.paths import Home
from llama_mgr.settings import BuildSettings, Origins, Settings, SourceSettings

AUTO = "llama-mgr config set default-arch auto"
OWN = 'name = "mine"\ntitle = "Ours"\n[[tool]]\nname = "own-compiler"\nfind = ["path:own"]\n'


def write_recipe(home: Home, text: str) -> None:
    home.recipes_dir.mkdir(exist_ok=True)
    (home.recipes_dir / "mine.toml").write_text(text)


def refused_arch(home: Home, name: str) -> LlamaMgrError:
    with pytest.raises(BadConfigError) as caught:
        require_usable(Settings(default_arch=name), Origins(home, {}), "default-arch")
    assert caught.value.message.startswith(f"cannot use in {home.config_file}: default-arch '{name}': ")
    return caught.value


@pytest.mark.parametrize(
    ("name", "hint"), [("nope", AUTO), ("vulcan", f"did you mean 'vulkan'? otherwise: {AUTO}"), ("A B", AUTO)]
)
def test_an_arch_that_is_no_recipe(home: Home, name: str, hint: str) -> None:
    assert refused_arch(home, name).hint == hint


def test_an_arch_whose_recipe_is_broken_tells_what_is_wrong_with_that(home: Home) -> None:
    write_recipe(home, OWN.replace('title = "Ours"', "titel = 1"))
    broken = refused_arch(home, "mine")
    assert "mine.toml': unknown key 'titel'" in broken.message
    assert broken.hint == "did you mean 'title'?"
    write_recipe(home, 'inherits = "vulcan"\n' + OWN)
    assert refused_arch(home, "mine").hint == "did you mean 'vulkan'?"
    assert "--with rpc" in str(refused_arch(home, "rpc").hint)


def test_tools_are_not_judged_while_a_recipe_cannot_be_read(home: Home) -> None:
    settings = Settings(build=BuildSettings(tools={"own-compiler": "/x", "foo": "/x"}))

    def unknown() -> list[str]:
        return [key for key, _ in setting_errors(settings, Origins(home, {}))]

    assert unknown() == ["build.tools.own-compiler", "build.tools.foo"]
    write_recipe(home, OWN)
    assert unknown() == ["build.tools.foo"]
    write_recipe(home, OWN + "[broken")
    assert unknown() == []


def test_only_what_is_asked_for_is_checked(home: Home) -> None:
    settings = Settings(default_arch="nope", source=SourceSettings(repo_url="ext::sh", package_index="nowhere"))
    require_usable(settings, Origins(home, {}), "build.parallel", "build.cache.max-size")
    assert [key for key, _ in setting_errors(settings, Origins(home, {}))] == [
        "default-arch",
        "source.repo-url",
        "source.package-index",
    ]
