"""`llama-mgr doctor`: what it shows, and what it ends with."""

from pathlib import Path

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.fake_program import make_compiler, make_program, path_of


def test_a_sound_machine(cli: Cli, home: Home) -> None:
    document = cli.json("doctor")
    tools = {tool["name"]: tool for tool in document["tools"]}
    assert {"c", "c++", "cmake", "ninja", "uv", "git"} <= set(tools)
    assert Path(tools["cmake"]["path"]).is_absolute()
    recipes = {recipe["name"]: recipe for recipe in document["recipes"]}
    assert recipes["cpu"]["ready"]
    assert all(recipe["ready"] or recipe["missing"] for recipe in recipes.values())
    assert document["host"]["cores"] >= 1
    assert document["free_disk_bytes"] > 0
    assert document["auto"]["recipe"] in recipes
    assert document["problems"] == []
    assert list(home.root.iterdir()) == [], "nothing is changed"


def test_leftovers_and_damage_and_the_commands_that_mend_them(cli: Cli, home: Home) -> None:
    (home.staging_dir / "b9-cpu-0123").mkdir(parents=True)
    answer = cli.done("doctor")
    assert "remark: unfinished work" in answer.stdout
    assert "mend:  llama-mgr instance gc" in answer.stdout
    cli.done("instance", "gc")
    home.instances_dir.mkdir(exist_ok=True)
    (home.instances_dir / "main.json").write_text("{")
    answer = cli("doctor")
    assert answer.status == 5
    assert "problem: cannot read" in answer.stdout
    cli.done("uninstall", "main")
    assert cli.done("doctor").stdout.rstrip().endswith("nothing is wrong")


def test_remarks_on_the_library(cli: Cli, home: Home, tmp_path: Path) -> None:
    watched = tmp_path / "with a space"
    watched.mkdir()
    cli.done("index", "add", watched)
    watched.rmdir()
    place = home.models_dir / "o" / "r"
    place.mkdir(parents=True)
    (place / "cut.gguf").write_bytes(b"GGUF")
    (place / f".big.gguf.{'0' * 16}.part").write_bytes(bytes(1000))
    killed = home.models_dir / ".import-0123456789ab"
    killed.mkdir()
    (killed / "alive.lock").touch()
    problems = cli.json("doctor")["problems"]
    assert [problem["where"] for problem in problems] == [
        str(watched),
        str(place / "cut.gguf"),
        str(home.models_dir),
    ]
    assert not any(problem["is_damage"] for problem in problems)
    assert "it is cut off" in problems[1]["what"]
    assert problems[0]["mend"] == f"llama-mgr index remove '{watched}'"
    assert "unfinished downloads: 1, and imports: 1, " in problems[2]["what"]
    assert problems[2]["mend"] == "llama-mgr index prune"


def test_a_damaged_list_of_roots_is_told_with_the_way_out(cli: Cli, home: Home, tmp_path: Path) -> None:
    (home.root / "model-roots.json").write_text("{")
    (problem,) = cli.json("doctor", status=5)["problems"]
    assert (problem["where"], problem["is_damage"]) == (str(home.root / "model-roots.json"), True)
    assert problem["mend"].startswith("llama-mgr index add DIRECTORY ")
    (tmp_path / "watched").mkdir()
    assert "it is " in cli.done("index", "add", tmp_path / "watched").stderr
    assert cli.json("doctor")["problems"] == []


def test_a_broken_config_is_a_problem_not_an_end(cli: Cli, home: Home) -> None:
    home.config_file.write_text("[build\n")
    document = cli.json("doctor", status=5)
    assert [problem["where"] for problem in document["problems"]] == [str(home.config_file)]
    assert document["tools"]


def test_every_bad_setting_is_named_with_where_it_stands(cli: Cli, home: Home) -> None:
    home.config_file.write_text(
        'default-arch = "nope"\n[build]\nparallel = 9999\n[build.tools]\nfoo = "/x"\nninja = "ninja"\n'
        '[build.cache]\nmax-size = "bogus"\n[source]\nrepo-url = "https://u:secret@host.invalid/x"\n'
    )
    variables = {"LLAMA_MGR_BUILD_CACHE_REMOTE": "nowhere", "LLAMA_MGR_BUILD_CACHE_ENABLED": "perhaps"}
    problems = cli.json("doctor", status=5, **variables)["problems"]
    file = str(home.config_file)
    for key, where in (
        ("default-arch", file),
        ("build.parallel", file),
        ("build.tools.foo", file),
        ("build.tools.ninja", file),
        ("build.cache.max-size", file),
        ("source.repo-url", file),
        *((variable, variable) for variable in variables),
    ):
        (problem,) = [problem for problem in problems if key in problem["what"]]
        assert problem["where"] == where
        assert problem["mend"]
    assert "secret" not in str(problems)


def test_without_compilers_the_status_says_tools_are_missing(cli: Cli, tmp_path: Path) -> None:
    document = cli.json("doctor", status=8, **path_of(tmp_path / "bin"))
    cpu = next(recipe for recipe in document["recipes"] if recipe["name"] == "cpu")
    assert {"c", "c++", "git"} <= {one["name"] for one in cpu["missing"]}
    git = next(tool for tool in document["tools"] if tool["name"] == "git")
    assert (git["path"], git["hint"]) == ("", "install git")
    make_compiler(tmp_path / "bin", "cc", "cc 12.2.0")
    make_compiler(tmp_path / "bin", "c++", "c++ 12.2.0")
    make_program(tmp_path / "bin", "git", "git version 2.39.5")
    cli.json("doctor", **path_of(tmp_path / "bin"))
