"""Records, generations, rollback, links, and what a crash between two steps leaves."""

import json
from pathlib import Path

import pytest

from llama_mgr.build.record import Builds
from llama_mgr.errors import (
    BadNameError,
    CorruptStateError,
    IntegrityError,
    NameTakenError,
    NoPreviousBuildError,
    NotFoundError,
    RefusedError,
    UnknownInstanceError,
    UnknownToolError,
)
from llama_mgr.instances.instance import KEPT_GENERATIONS, Instances, WantedBuild
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.fake_program import make_program
from tests.tools.shelf_build import MakeBuild, program_of

WANTED = WantedBuild()


def current(home: Home, name: str) -> Path:
    return (home.instances_dir / name / "current").resolve()


def test_pointing_again_keeps_the_older_build_as_a_generation(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    old, new = make_build(1), make_build(2)
    instances.point("main", old, WANTED)
    instances.point("main", new, WANTED)
    assert instances.find("main").build_ids() == [new.build_id, old.build_id]
    assert current(home, "main") == Builds(home).directory(new.build_id)


def test_pointing_at_the_same_build_adds_no_generation(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    first = instances.point("main", make_build(1), WANTED)
    again = instances.point("main", Builds(home).find(first.current.build_id), WantedBuild(version="b1"))
    assert again.build_ids() == first.build_ids()
    assert again.current.wanted.version == "b1"
    assert again.current.since == first.current.since


def test_returning_to_an_older_build_moves_it_to_the_front(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    builds = [make_build(number) for number in (1, 2, 3)]
    for build in [*builds, builds[0]]:
        instances.point("main", build, WANTED)
    assert instances.find("main").build_ids() == [builds[0].build_id, builds[2].build_id, builds[1].build_id]


def test_only_so_many_generations_are_kept(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    for number in range(1, KEPT_GENERATIONS + 3):
        instances.point("main", make_build(number), WANTED)
    kept = instances.find("main").generations
    assert [one.version for one in kept] == [f"b{n}" for n in range(KEPT_GENERATIONS + 2, 2, -1)]


def test_rollback_and_forth(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    old, new = make_build(1), make_build(2)
    instances.point("main", old, WANTED)
    instances.point("main", new, WANTED)
    assert instances.roll_back("main").build_ids() == [old.build_id, new.build_id]
    assert current(home, "main") == Builds(home).directory(old.build_id)
    assert instances.roll_back("main").build_ids() == [new.build_id, old.build_id]


def test_rollback_without_an_earlier_build(home: Home, make_build: MakeBuild) -> None:
    Instances(home).point("main", make_build(1), WANTED)
    with pytest.raises(NoPreviousBuildError):
        Instances(home).roll_back("main")


@pytest.mark.parametrize("vanish", [True, False], ids=["file gone", "file shorter"])
def test_rollback_to_a_damaged_build_changes_nothing(home: Home, make_build: MakeBuild, vanish: bool) -> None:
    instances = Instances(home)
    old, new = make_build(1), make_build(2)
    instances.point("main", old, WANTED)
    instances.point("main", new, WANTED)
    program = program_of(home, old.build_id)
    if vanish:
        program.unlink()
    else:
        program.write_bytes(program.read_bytes()[:-1])
    before = (home.instances_dir / "main.json").read_bytes()
    with pytest.raises(IntegrityError, match="llama-server"):
        instances.roll_back("main")
    assert (home.instances_dir / "main.json").read_bytes() == before
    assert current(home, "main") == Builds(home).directory(new.build_id)


def test_trim_never_forgets_the_current_build(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    for number in (1, 2, 3):
        instances.point("main", make_build(number), WANTED)
    instances.trim("main", 0)
    assert [one.version for one in instances.find("main").generations] == ["b3"]


@pytest.mark.parametrize("way", ["build", "current", "link", "bin", "program"])
def test_what_lies_in_the_home_cannot_be_linked(home: Home, make_build: MakeBuild, tmp_path: Path, way: str) -> None:
    instances = Instances(home)
    build = make_build(1)
    instances.point("main", build, WANTED)
    prefix, own = Builds(home).directory(build.build_id), tmp_path / "own"
    if way == "link":
        own.symlink_to(prefix)
    elif way == "bin":
        own.mkdir()
        (own / "bin").symlink_to(prefix / "bin")
    elif way == "program":
        own.mkdir()
        (own / "llama-server").symlink_to(program_of(home, build.build_id))
    place = {"build": prefix, "current": home.instances_dir / "main" / "current"}.get(way, own)
    with pytest.raises(RefusedError, match="deletes"):
        instances.link("inner", place)
    assert instances.names() == ["main"]


def test_a_linked_directory_is_never_touched(home: Home, tmp_path: Path) -> None:
    own = tmp_path / "own" / "bin"
    make_program(own, "llama-server")
    instances = Instances(home)
    linked = instances.link("mine", own.parent)
    assert instances.program(linked, "server") == own / "llama-server"
    assert current(home, "mine") == own.parent
    instances.remove("mine")
    assert (own / "llama-server").exists()
    assert instances.names() == []
    assert not (home.instances_dir / "mine").exists()


def test_linking_refuses_a_directory_without_programs(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Instances(home).link("mine", tmp_path)
    assert Instances(home).names() == []


def test_linking_does_not_replace_an_installed_instance(home: Home, make_build: MakeBuild) -> None:
    build = make_build(1)
    instances = Instances(home)
    instances.point("main", build, WANTED)
    with pytest.raises(NameTakenError):
        instances.link("main", Builds(home).directory(build.build_id))
    assert instances.find("main").build_ids() == [build.build_id]


def test_installing_does_not_replace_a_link(home: Home, make_build: MakeBuild, tmp_path: Path) -> None:
    build = make_build(1)
    instances = Instances(home)
    make_program(tmp_path / "own", "llama-server")
    instances.link("mine", tmp_path / "own")
    with pytest.raises(NameTakenError, match="linked"):
        instances.point("mine", build, WANTED)
    assert instances.find("mine").linked is not None


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "UPPER", "current", "a" * 65, "con.txt", "a\nb"])
def test_impossible_names_are_refused_everywhere(home: Home, make_build: MakeBuild, name: str) -> None:
    instances = Instances(home)
    with pytest.raises(BadNameError):
        instances.find(name)
    with pytest.raises(BadNameError), instances.locked(name, "try", SilentReporter()):
        pass
    with pytest.raises(BadNameError):
        instances.link(name, Builds(home).directory(make_build(1).build_id))


def test_an_unknown_name_tells_the_nearest(home: Home, make_build: MakeBuild) -> None:
    Instances(home).point("main", make_build(1), WANTED)
    with pytest.raises(UnknownInstanceError) as caught:
        Instances(home).find("mian")
    assert caught.value.hint == "did you mean 'main'?"


def test_a_name_that_differs_in_case_is_taken(home: Home, make_build: MakeBuild) -> None:
    Instances(home).point("main", make_build(1), WANTED)
    with pytest.raises(NameTakenError, match="'main' exists"):
        Instances(home).find("Main")


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"{", b"[" * 100_000, b'{"schema": 1, "schema": 1}', b'{"schema": 1, "kind": "instance"}'],
    ids=["empty", "null", "cut", "deep", "twice", "without fields"],
)
def test_a_damaged_record_is_an_integrity_error_and_stays(home: Home, content: bytes) -> None:
    file = home.instances_dir / "main.json"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(CorruptStateError):
        Instances(home).find("main")
    assert list(Instances(home)) == []
    assert file.read_bytes() == content


def test_a_record_that_names_a_build_outside_is_refused(home: Home, make_build: MakeBuild) -> None:
    Instances(home).point("main", make_build(1), WANTED)
    file = home.instances_dir / "main.json"
    document = json.loads(file.read_text())
    document["generations"][0]["build_id"] = "../../outside"
    file.write_text(json.dumps(document))
    with pytest.raises(CorruptStateError):
        Instances(home).find("main")


def test_programs_are_found_by_both_names(home: Home, make_build: MakeBuild) -> None:
    build = make_build(1)
    instances = Instances(home)
    instance = instances.point("main", build, WANTED)
    assert instances.program(instance, "server") == program_of(home, build.build_id)
    assert instances.program(instance, "llama-server") == program_of(home, build.build_id)
    with pytest.raises(UnknownToolError) as caught:
        instances.program(instance, "llama-servr")
    assert caught.value.hint == "did you mean 'llama-server'?"


def test_removal_refuses_what_is_not_ours(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    instances.point("main", make_build(1), WANTED)
    (home.instances_dir / "main" / "thesis.txt").write_text("mine")
    with pytest.raises(RefusedError, match=r"thesis\.txt"):
        instances.remove("main")
    assert instances.find("main").name == "main"


def test_removal_takes_a_half_made_link_along(home: Home, make_build: MakeBuild) -> None:
    """A command that was killed between making the new link and renaming it."""
    instances = Instances(home)
    instances.point("main", make_build(1), WANTED)
    (home.instances_dir / "main" / ".current.0123456789ab.tmp").symlink_to("../../builds/x")
    instances.remove("main")
    assert not (home.instances_dir / "main").exists()


def test_a_kill_between_record_and_link_is_mended(home: Home, make_build: MakeBuild) -> None:
    instances = Instances(home)
    old, new = make_build(1), make_build(2)
    instances.point("main", old, WANTED)
    link = home.instances_dir / "main" / "current"
    before = link.readlink()
    instances.point("main", new, WANTED)
    link.unlink()
    link.symlink_to(before)
    assert instances.find("main").current.build_id == new.build_id
    instances.repair_link(instances.find("main"))
    assert current(home, "main") == Builds(home).directory(new.build_id)
