"""Manifests: the shipped examples, the schema, and what is refused."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from llama_mgr.build.recipe import Recipes
from llama_mgr.errors import BadConfigError, LlamaMgrError, NewerStateError, NotFoundError, StorageError
from llama_mgr.instances.manifest import default_directory, read_manifest, read_manifests, schema
from llama_mgr.paths import Home, shipped_dir
from llama_mgr.settings import Settings, SourceSettings

EXAMPLES = shipped_dir("instances")


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_the_shipped_schema_is_the_generated_one() -> None:
    shipped = json.loads((EXAMPLES / "instance.schema.json").read_text())
    assert shipped == schema(), "write instances/instance.schema.json again from llama_mgr.instances.manifest.schema()"
    jsonschema.Draft202012Validator.check_schema(shipped)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_valid_and_name_recipes_that_exist(path: Path, home: Home) -> None:
    jsonschema.validate(tomllib.loads(path.read_text()), schema())
    manifest = read_manifest(path)
    assert path.name in (EXAMPLES / "README.md").read_text()
    recipes = Recipes(home)
    for name in [manifest.arch or "auto", *manifest.parts]:
        assert name == "auto" or recipes.find(name).name == name


def test_all_examples_can_be_used_together() -> None:
    assert len(read_manifests(EXAMPLES)) == len(list(EXAMPLES.glob("*.toml"))) == 7


def test_what_a_manifest_wants(tmp_path: Path) -> None:
    text = """
        name = "gpu"
        version = "b11434"
        arch = "cuda"
        with = ["rpc", "blas", "rpc"]
        repo-url = "https://example.invalid/fork"
        source = "git"
        targets = ["llama-server"]
        python = false
        [defines]
        GGML_CUDA_FORCE_MMQ = true
        GGML_CUDA_GRAPHS = false
        GGML_SCHED_MAX_COPIES = 8
        CMAKE_CUDA_ARCHITECTURES = "86;89"
    """
    manifest = read_manifest(write(tmp_path, "gpu.toml", text))
    wanted = manifest.wanted(Settings())
    assert (wanted.version, wanted.recipe, wanted.parts) == ("b11434", "cuda", ["blas", "rpc"])
    assert (wanted.repo_url, wanted.source, wanted.targets) == ("https://example.invalid/fork", "git", ["llama-server"])
    assert manifest.python is False
    assert wanted.defines == {
        "GGML_CUDA_FORCE_MMQ": "ON",
        "GGML_CUDA_GRAPHS": "OFF",
        "GGML_SCHED_MAX_COPIES": "8",
        "CMAKE_CUDA_ARCHITECTURES": "86;89",
    }


def test_settings_fill_in_what_is_left_out(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, "x.toml", 'name = "x"\n'))
    settings = Settings(default_arch="vulkan", source=SourceSettings(repo_url="https://example.invalid/fork"))
    wanted = manifest.wanted(settings)
    assert (wanted.version, wanted.recipe, wanted.repo_url) == ("latest", "vulkan", "https://example.invalid/fork")
    assert manifest.wanted(Settings()).repo_url is None


@pytest.mark.parametrize("text", ['version = "./llama.cpp"', 'source = "snapshot"'])
def test_what_comes_from_no_repository_gets_none_from_the_settings(tmp_path: Path, text: str) -> None:
    manifest = read_manifest(write(tmp_path, "x.toml", f'name = "x"\n{text}\n'))
    settings = Settings(source=SourceSettings(repo_url="https://example.invalid/fork"))
    assert manifest.wanted(settings).repo_url is None


CONTRADICTIONS = [
    ('version = "b1"\nbranch = "y"', "not both"),
    ('version = "./llama.cpp"\nbranch = "y"', "not both"),
    ('version = "./llama.cpp"\nrepo-url = "https://example.invalid/fork"', "not both"),
    ('version = "~"\nrepo-url = "https://example.invalid/fork"', "not both"),
    ('source = "snapshot"\nbranch = "y"', "upstream's builds only"),
    ('source = "snapshot"\nrepo-url = "https://example.invalid/fork"', "upstream's builds only"),
]


@pytest.mark.parametrize(("text", "says"), CONTRADICTIONS)
def test_contradictions_are_refused_when_they_are_read(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, "a.toml", 'name = "a"\n')
    write(tmp_path, "x.toml", f'name = "x"\n{text}\n')
    with pytest.raises(BadConfigError, match=says) as caught:
        read_manifests(tmp_path)
    assert "x.toml" in caught.value.message
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(f'name = "x"\n{text}'), schema())


@pytest.mark.parametrize("text", ['version = "latest"\nbranch = "y"', 'version = "b1"\nsource = "snapshot"'])
def test_what_only_looks_like_a_contradiction(tmp_path: Path, text: str) -> None:
    assert read_manifest(write(tmp_path, "x.toml", f'name = "x"\n{text}\n')).name == "x"
    jsonschema.validate(tomllib.loads(f'name = "x"\n{text}'), schema())


def test_a_relative_tree_is_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "team").mkdir()
    path = write(tmp_path / "team", "x.toml", 'name = "x"\nversion = "../llama.cpp"\n')
    assert read_manifest(path).version == str(tmp_path / "llama.cpp")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name"),
        ('name = "x"\nvresion = "b1"\n', "unknown key 'vresion'"),
        ('name = "x"\n[define]\nA = 1\n', "unknown key 'define'"),
        ('name = "../x"\n', "name"),
        ('name = "Upper"\n', "name"),
        ('name = "current"\n', "reserved"),
        ('name = "x"\nversion = "a..b"\n', "not a valid git ref"),
        ('name = "x"\nversion = "--upload-pack=x"\n', "do not start with '-'"),
        ('name = "x"\nbranch = "x y"\n', "not a valid git ref"),
        ('name = "x"\nversion = ""\n', "version"),
        ('name = "x"\nsource = "svn"\n', "source"),
        ('name = "x"\nwith = "rpc"\n', "with"),
        ('name = "x"\npython = 1\n', "python"),
        ('name = "x"\n[defines]\n"A B" = 1\n', "A B"),
        ('name = "x"\n[defines]\nA = 1.5\n', "defines"),
        ('name = "x"\n[defines]\nA = ["x"]\n', "defines"),
        ('name = "x"\n[defines]\nA = "x\\ny"\n', "line break"),
        ('name = "x"\nname = "y"\n', "x.toml:2:"),
        ('schema = 0\nname = "x"\n', "schema"),
    ],
)
def test_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadConfigError) as caught:
        read_manifest(write(tmp_path, "x.toml", text))
    assert says in caught.value.message
    assert "x.toml" in caught.value.message


def test_the_nearest_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError) as caught:
        read_manifest(write(tmp_path, "x.toml", 'name = "x"\nrepo_url = "y"\n'))
    assert caught.value.hint == "did you mean 'repo-url'?"


def test_a_newer_schema(tmp_path: Path) -> None:
    with pytest.raises(NewerStateError):
        read_manifest(write(tmp_path, "x.toml", 'schema = 2\nname = "x"\n'))


def test_two_manifests_with_one_name(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", 'name = "x"\n')
    write(tmp_path, "b.toml", 'name = "x"\n')
    with pytest.raises(BadConfigError, match=r"b\.toml.*a\.toml"):
        read_manifests(tmp_path)


def test_manifests_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "1.toml", 'name = "b"\n')
    write(tmp_path, "2.toml", 'name = "a"\n')
    write(tmp_path, "llama-mgr.toml", 'instance = "a"\n')
    write(tmp_path, "pyproject.toml", "[project]\n")
    write(tmp_path, "llama-mgr.lock", "{}")
    assert [file.manifest.name for file in read_manifests(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("place", "error"), [("empty", NotFoundError), ("nowhere", NotFoundError), ("f", StorageError)]
)
def test_a_place_without_manifests(tmp_path: Path, place: str, error: type[LlamaMgrError]) -> None:
    """So that `sync --prune` in a wrong directory removes nothing."""
    (tmp_path / "empty").mkdir()
    write(tmp_path, "f", "")
    with pytest.raises(error):
        read_manifests(tmp_path / place)


def test_the_default_directory(tmp_path: Path) -> None:
    assert default_directory(tmp_path) == tmp_path
    (tmp_path / "instances").mkdir()
    assert default_directory(tmp_path) == tmp_path / "instances"
