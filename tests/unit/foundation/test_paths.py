import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llama_mgr.errors import BadInputError, LlamaMgrError, RefusedError, StorageError
from llama_mgr.paths import Home, home_from, join_below, shipped_dir

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOME": ""},
        {"HOME": "/"},
        {"HOME": "/a\nb"},
        {"HOME": "relative"},
        {"LLAMA_MGR_HOME": "relative", "HOME": "/x"},
        {"LLAMA_MGR_HOME": "/", "HOME": "/x"},
        {"LLAMA_MGR_HOME": "/a\x1b[2J", "HOME": "/x"},
        {"LLAMA_MGR_HOME": "/" + "a" * 5000, "HOME": "/x"},
    ],
)
def test_unusable_homes_name_the_variable(environ: dict[str, str]) -> None:
    with pytest.raises(BadInputError) as caught:
        home_from(environ)
    assert "HOME" in caught.value.message
    assert caught.value.hint == "set LLAMA_MGR_HOME"


def test_the_variable_wins(tmp_path: Path) -> None:
    assert home_from({"LLAMA_MGR_HOME": "/a b/ü", "HOME": "/x"}).root == Path("/a b/ü")
    assert home_from({"LLAMA_MGR_HOME": " ", "HOME": str(tmp_path)}).root == tmp_path / ".llama-mgr"
    with pytest.raises(StorageError, match="there is no such directory"):
        home_from({"HOME": str(tmp_path / "none")})


def test_a_home_that_others_may_write_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "open"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(RefusedError, match="others may write"):
        Home(root).prepare()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Home(tmp_path / "file").prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_of_another_user_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "other"
    root.mkdir()
    os.chown(root, 65534, 65534)
    with pytest.raises(RefusedError, match="belongs to uid 65534"):
        Home(root).prepare()
    with pytest.raises(RefusedError, match="belongs to uid 65534"):
        Home(root / ".llama-mgr").prepare()


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "a\\b", "a\nb"])
def test_join_below_refuses_parts_that_leave(part: str) -> None:
    with pytest.raises(LlamaMgrError):
        join_below(Path("/root"), part)


def test_shipped_data_is_found_in_a_checkout_and_in_a_wheel(tmp_path: Path) -> None:
    assert (shipped_dir("recipes") / "cpu.toml").is_file()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = "from llama_mgr.paths import shipped_dir; print(shipped_dir('recipes'), shipped_dir('instances'))"
    environ = {"PYTHONPATH": str(tmp_path / "site"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    for place in done.stdout.split():
        assert Path(place).is_relative_to(tmp_path / "site")
        assert list(Path(place).glob("*.toml"))


def test_models_lie_where_the_setting_says(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.with_models("").models_dir == home.root / "models"
    moved = home.with_models(str(tmp_path / "big" / "models"))
    assert moved.models_dir == tmp_path / "big" / "models"
    assert (moved.root, moved.builds_dir) == (home.root, home.builds_dir)
