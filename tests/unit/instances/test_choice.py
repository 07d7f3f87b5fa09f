"""Which instance a command means: each rule, and that it wins over all later ones."""

from pathlib import Path

import pytest

from llama_mgr.errors import BadConfigError, CorruptStateError, NewerStateError, UnknownInstanceError
from llama_mgr.instances.choice import (
    INSTANCE_VARIABLE,
    choose,
    default_name,
    forget_default,
    offer_default,
    set_default,
)
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.listener import Listener
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
    forget_default(home, "other", SilentReporter())
    assert default_name(home) == "default"
    forget_default(home, "default", SilentReporter())
    assert default_name(home) is None


def test_the_default_is_offered_until_there_is_one(home: Home, make_build: MakeBuild) -> None:
    for name in ("one", "two"):
        Instances(home).point(name, make_build(1), WantedBuild())
    assert [offer_default(home, name, SilentReporter()) for name in ("one", "two")] == [True, False]
    assert default_name(home) == "one"


def damaged_default(home: Home, content: str = "junk") -> Path:
    file = home.root / "default-instance.json"
    file.write_text(content)
    return file


@pytest.mark.usefixtures("names")
def test_a_damaged_default_is_chosen_again_by_use(home: Home) -> None:
    damaged_default(home)
    with pytest.raises(CorruptStateError) as caught:
        choose(home, None, {}, home.root)
    assert "llama-mgr use NAME" in str(caught.value.hint)
    set_default(home, "other")
    assert choose(home, None, {}, home.root).instance.name == "other"


@pytest.mark.usefixtures("names")
def test_a_damaged_default_is_none_and_that_is_said(home: Home) -> None:
    damaged_default(home)
    heard = Listener()
    assert offer_default(home, "other", heard)
    assert default_name(home) == "other"
    file = damaged_default(home)
    forget_default(home, "flag", heard)
    assert not file.exists()
    assert len(heard.warnings) == 2
    assert all("default-instance.json" in line and "llama-mgr use" in line for line in heard.warnings)


@pytest.mark.usefixtures("names")
def test_the_default_of_a_newer_llama_mgr_is_left_alone(home: Home) -> None:
    newer = '{"schema": 99, "kind": "default-instance"}'
    file = damaged_default(home, newer)
    heard = Listener()
    assert not offer_default(home, "other", heard)
    assert "schema 99" in heard.warnings[0]
    with pytest.raises(NewerStateError):
        forget_default(home, "other", heard)
    assert file.read_text() == newer
