"""Which instance a command means: each rule, and that it wins over all later ones."""

from pathlib import Path

import pytest

from llama_mgr.errors import BadConfigError, UnknownInstanceError
from llama_mgr.instances.choice import INSTANCE_VARIABLE, choose, default_name, forget_default, set_default
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from tests.tools.shelf_build import MakeBuild


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory two levels below a llama-mgr.toml that names `project`."""
    below = tmp_path / "project" / "src" / "deep"
    below.mkdir(parents=True)
    (tmp_path / "project" / "llama-mgr.toml").write_text('instance = "project"\n')
    return below


@pytest.fixture
def names(home: Home, make_build: MakeBuild) -> list[str]:
    """Instances of these names, of which `default` is the default."""
    build = make_build(1)
    for name in ("flag", "variable", "project", "default", "other"):
        Instances(home).point(name, build, WantedBuild())
    set_default(home, "default")
    return Instances(home).names()


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("flag", "variable", "in_project", "chosen", "why"),
    [
        ("flag", "variable", True, "flag", "--instance"),
        (None, "variable", True, "variable", INSTANCE_VARIABLE),
        (None, None, True, "project", "llama-mgr.toml"),
        (None, None, False, "default", "default"),
        (None, "  ", False, "default", "default"),
    ],
)
def test_the_order(
    home: Home, project: Path, flag: str | None, variable: str | None, in_project: bool, chosen: str, why: str
) -> None:
    environ = {} if variable is None else {INSTANCE_VARIABLE: variable}
    choice = choose(home, flag, environ, project if in_project else home.root)
    assert choice.instance.name == chosen
    assert why in choice.why


def test_the_only_instance_needs_no_name(home: Home, make_build: MakeBuild) -> None:
    Instances(home).point("only", make_build(1), WantedBuild())
    assert choose(home, None, {}, home.root).instance.name == "only"


def test_several_without_default_are_named(home: Home, make_build: MakeBuild) -> None:
    for name in ("one", "two"):
        Instances(home).point(name, make_build(1), WantedBuild())
    with pytest.raises(UnknownInstanceError, match="one, two"):
        choose(home, None, {}, home.root)


def test_none_at_all_names_install(home: Home) -> None:
    with pytest.raises(UnknownInstanceError) as caught:
        choose(home, None, {}, home.root)
    assert "llama-mgr install" in str(caught.value.hint)


@pytest.mark.usefixtures("names")
def test_a_named_instance_that_does_not_exist_is_not_replaced_by_another(home: Home, project: Path) -> None:
    with pytest.raises(UnknownInstanceError):
        choose(home, "nobody", {}, project)
    with pytest.raises(UnknownInstanceError):
        choose(home, None, {INSTANCE_VARIABLE: "nobody"}, project)


@pytest.mark.usefixtures("names")
def test_a_malformed_project_file_is_an_error(home: Home, project: Path) -> None:
    (project / "llama-mgr.toml").write_text('instnce = "x"\n')
    with pytest.raises(BadConfigError, match="instnce"):
        choose(home, None, {}, project)


@pytest.mark.usefixtures("names")
def test_forgetting_is_only_for_the_default(home: Home) -> None:
    forget_default(home, "other")
    assert default_name(home) == "default"
    forget_default(home, "default")
    assert default_name(home) is None
