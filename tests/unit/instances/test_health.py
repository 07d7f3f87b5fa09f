"""What `doctor` says about the state on disk: every planted fault is found, named with its place, and mendable."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr import locks, staging
from llama_mgr.build.record import RECORD_NAME, BuildRecord, Builds
from llama_mgr.instances.choice import set_default
from llama_mgr.instances.health import Problem, held_locks, problems
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.fake_program import make_program
from tests.tools.shelf_build import MakeBuild, program_of


@pytest.fixture
def build(home: Home, make_build: MakeBuild) -> BuildRecord:
    """The current build of the instance `main`, which has an earlier one, too."""
    old, new = make_build(1), make_build(2)
    for one in (old, new):
        Instances(home).point("main", one, WantedBuild())
    set_default(home, "main")
    return new


def only(found: list[Problem]) -> Problem:
    assert len(found) == 1, found
    return found[0]


def test_an_empty_home_and_a_sound_one_have_no_problems(tmp_path: Path, home: Home, build: BuildRecord) -> None:
    assert problems(Home(tmp_path / "nothing")) == []
    assert build.build_id in Builds(home).ids()
    assert problems(home, with_hashes=True) == []


def truncate(home: Home, build: BuildRecord) -> None:
    program_of(home, build.build_id).write_text("#!")


def forbid_program(home: Home, build: BuildRecord) -> None:
    program_of(home, build.build_id).chmod(0o644)


def delete_program(home: Home, build: BuildRecord) -> None:
    program_of(home, build.build_id).unlink()


def break_build_record(home: Home, build: BuildRecord) -> None:
    (Builds(home).directory(build.build_id) / RECORD_NAME).write_text("{")


def delete_build(home: Home, build: BuildRecord) -> None:
    Builds(home).discard(build.build_id)


def turn_link(home: Home, build: BuildRecord) -> None:
    link = home.instances_dir / "main" / "current"
    link.unlink()
    link.symlink_to(f"../../builds/{build.build_id.replace('b2', 'b1')}")


def remove_link(home: Home, build: BuildRecord) -> None:  # noqa: ARG001
    (home.instances_dir / "main" / "current").unlink()


def break_instance_record(home: Home, build: BuildRecord) -> None:  # noqa: ARG001
    (home.instances_dir / "main.json").write_text("[]")


def newer_instance_record(home: Home, build: BuildRecord) -> None:  # noqa: ARG001
    file = home.instances_dir / "main.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))


def lose_default(home: Home, build: BuildRecord) -> None:  # noqa: ARG001
    file = home.root / "default-instance.json"
    file.write_text(file.read_text().replace("main", "gone"))


def break_default(home: Home, build: BuildRecord) -> None:  # noqa: ARG001
    (home.root / "default-instance.json").write_text("")


def break_recipe(home: Home, build: BuildRecord) -> None:  # noqa: ARG001
    home.recipes_dir.mkdir()
    (home.recipes_dir / "mine.toml").write_text('name = "mine"\ntitle = 3\n')


@pytest.mark.parametrize(
    ("damage", "what", "where", "mend"),
    [
        (truncate, "llama-server has 2 bytes", "builds/b2-", "llama-mgr instance repair main"),
        (forbid_program, "llama-server is not executable", "builds/b2-", "llama-mgr instance repair main"),
        (delete_program, "llama-server is missing", "builds/b2-", "llama-mgr instance repair main"),
        (break_build_record, "not a JSON document", "builds/b2-", "llama-mgr instance repair main"),
        (
            turn_link,
            "'current' of the instance 'main' leads elsewhere",
            "main/current",
            "llama-mgr instance repair main",
        ),
        (remove_link, "'current' of the instance 'main' is missing", "main/current", "llama-mgr instance repair main"),
        (break_instance_record, "not a JSON object", "instances/main.json", "llama-mgr install main"),
        (newer_instance_record, "schema 99", "instances/main.json", "upgrade llama-mgr"),
        (lose_default, "the default instance 'gone' does not exist", "", "llama-mgr use NAME"),
        (break_default, "not a JSON document", "", "llama-mgr use NAME"),
        (break_recipe, "title", "recipes/mine.toml", "edit it"),
    ],
)
def test_damage_is_found(
    home: Home, build: BuildRecord, damage: Callable[[Home, BuildRecord], None], what: str, where: str, mend: str
) -> None:
    damage(home, build)
    problem = only(problems(home))
    assert what in problem.what
    assert problem.where.startswith(str(home.root))
    assert where in problem.where
    assert problem.mend.startswith(mend)
    assert problem.is_damage


def test_a_missing_build_is_named_and_its_dangling_link_is_one_with_it(home: Home, build: BuildRecord) -> None:
    delete_build(home, build)
    problem = only(problems(home))
    assert problem.what == "the build of the instance 'main' is missing"
    assert problem.mend == "llama-mgr instance repair main"


def test_a_damaged_earlier_build_can_be_made_again(home: Home, build: BuildRecord) -> None:
    earlier = Instances(home).find("main").build_ids()[1]
    assert earlier != build.build_id
    program_of(home, earlier).unlink()
    problem = only(problems(home))
    assert problem.what.startswith("earlier build of 'main'")
    assert problem.mend == "llama-mgr instance repair main"


def test_changed_bytes_of_the_same_size_are_found_by_hashing(home: Home, build: BuildRecord) -> None:
    program = program_of(home, build.build_id)
    program.write_bytes(program.read_bytes()[:-1] + b"X")
    assert problems(home) == []
    assert "sha256" in only(problems(home, with_hashes=True)).what


def test_a_damaged_build_that_nothing_needs(home: Home, make_build: MakeBuild) -> None:
    unneeded = make_build(3)
    program_of(home, unneeded.build_id).unlink()
    assert only(problems(home)).mend == "llama-mgr instance gc"
    (Builds(home).directory(unneeded.build_id) / staging.MARKER_NAME).unlink()
    assert "by hand" in only(problems(home)).mend


@pytest.mark.usefixtures("build")
def test_leftovers_are_no_damage(home: Home) -> None:
    (home.staging_dir / "b9-cpu-0123").mkdir(parents=True)
    (home.trash_dir / "b8-cpu-0123").mkdir(parents=True)
    (home.instances_dir / "gone").mkdir()
    (home.instances_dir / "old.json.corrupt-2026").touch()
    found = problems(home)
    assert {Path(problem.where).name for problem in found} == {
        "b9-cpu-0123", "b8-cpu-0123", "gone", "old.json.corrupt-2026",
    }  # fmt: skip
    assert not any(problem.is_damage for problem in found)


def test_work_in_progress_is_no_problem_and_its_lock_is_shown(home: Home, build: BuildRecord) -> None:
    remove_link(home, build)
    with (
        staging.staging(home, "b9-cpu"),
        locks.held_lock(home, "instance-main", "install main (b9, cpu)", SilentReporter()),
    ):
        assert problems(home) == []
        lock = held_locks(home)
    assert [one.name for one in lock] == ["instance-main"]
    assert f"pid {os.getpid()} " in lock[0].holder
    assert "(install main (b9, cpu))" in lock[0].holder
    assert held_locks(home) == []
    assert problems(home) != []


def test_a_linked_directory_that_is_gone(home: Home, tmp_path: Path) -> None:
    own = tmp_path / "own"
    server = make_program(own, "llama-server")
    Instances(home).link("mine", own)
    assert problems(home) == []
    server.unlink()
    own.rmdir()
    assert only(problems(home)) == Problem(
        "the instance 'mine' is linked to a directory that is gone", str(own), "llama-mgr uninstall mine"
    )
