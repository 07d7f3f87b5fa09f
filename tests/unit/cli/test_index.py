"""`llama-mgr index …` on the command line."""

from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import put, put_recorded


@pytest.fixture
def lm_studio(tmp_path: Path) -> Path:
    root = tmp_path / "user/.lmstudio/models"
    put(root / "publisher/Model-GGUF/Model-Q4_K_M.gguf", model_bytes(seed=3))
    return root


def test_a_directory_is_watched_listed_and_forgotten(cli: Cli, home: Home, lm_studio: Path) -> None:
    put(home.models_dir / "o/r/r.gguf")
    answer = cli.done("index", "add", lm_studio.parent)
    assert answer.stdout.startswith(f"{lm_studio} (LM Studio) is watched now: 1 model, ")
    assert "is watched already" in cli.done("index", "add", lm_studio).stdout
    rows = cli.json("index", "list")["roots"]
    assert [(row["form"], row["models"], row["state"]) for row in rows] == [("own", 1, ""), ("lm-studio", 1, "")]
    assert [row["key"] for row in cli.json("list")["models"]] == ["o/r:Q4_K_M", "publisher/Model-GGUF:Q4_K_M"]
    lm_studio.rename(lm_studio.with_name("away"))
    shown = cli.done("index", "list")
    assert "not there" in shown.stdout
    assert "cannot search" in shown.stderr
    cli.done("index", "remove", lm_studio)
    assert [row["key"] for row in cli.json("list")["models"]] == ["o/r:Q4_K_M"]


def test_what_other_tools_have_is_found(cli: Cli, lm_studio: Path, tmp_path: Path) -> None:
    put(tmp_path / "user/.cache/huggingface/hub/models--o--r/snapshots/abc/x-Q8_0.gguf", model_bytes(quant="Q8_0"))
    rows = cli.json("index", "add", "--found")["roots"]
    mine = {row["form"]: row["models"] for row in rows if row["path"].startswith(str(tmp_path))}
    assert mine == {"lm-studio": 1, "hf-cache": 1}
    assert not any(row["is_new"] for row in cli.json("index", "add", "--found")["roots"])
    assert lm_studio.is_dir()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("add",), 2),
        (("add", "--found", "."), 2),
        (("add", "/"), 4),
        (("remove", "missing"), 3),
    ],
)
def test_refusals(cli: Cli, home: Home, words: tuple[str, ...], status: int) -> None:
    put(home.models_dir / "o/r/r.gguf")
    answer = cli("index", *words)
    assert answer.status == status, answer.stderr
    assert not (home.root / "model-roots.json").exists()


def test_one_bad_place_among_the_usual_ones_stops_no_other(
    cli: Cli, home: Home, lm_studio: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "user/\x01models"
    bad.mkdir()
    answer = cli("index", "add", "--found", "--json", LLAMA_CACHE=str(bad))
    assert answer.status == 0, answer.stderr
    assert "characters that no state file can hold" in answer.stderr
    assert str(lm_studio) in (home.root / "model-roots.json").read_text()


@pytest.mark.parametrize("words", [("index", "add"), ("index", "remove"), ("import",), ("show",)])
def test_the_home_of_nobody_is_a_path_like_others(cli: Cli, words: tuple[str, ...]) -> None:
    answer = cli(*words, "~no-such-user-here/x.gguf")
    assert answer.status == 3, answer.stderr
    assert "no-such-user-here" in answer.stderr


def test_verify_names_the_file_both_hashes_and_the_way_out(cli: Cli, home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/r.gguf", repo="o/r", revision="a" * 40)
    put_recorded(home.models_dir / "o/fine/f.gguf", model_bytes(seed=1))
    assert "2 files, 2 hashed" in cli.done("index", "verify").stdout
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    answer = cli("index", "verify")
    assert answer.status == 5
    for words in (
        f"{path}: it does not have the sha256",
        "  sha256 ",
        "  wanted ",
        "&& llama-mgr pull o/r/r.gguf",
        "1 wrong",
    ):
        assert words in answer.stdout
    assert answer.stderr.startswith(f"error: cannot use '{path}': it does not have")
    document = cli.json("index", "verify", status=5)
    assert [one["path"] for one in document["findings"]] == [str(path)]
    cli.done("index", "verify", "fine")
    cli.done("index", "verify", "--quick")
    assert cli("index", "verify", path).status == 5
    assert cli("index", "verify", "nothing").status == 3


def test_rebuild_reads_everything_again(cli: Cli, home: Home) -> None:
    put(home.models_dir / "o/r/r.gguf")
    put(home.models_dir / "o/r/broken.gguf", b"")
    cli.done("list")
    (home.root / "index.sqlite").write_bytes(b"damaged")
    answer = cli.done("index", "rebuild")
    assert answer.stdout == "the index has 1 model; 1 broken\n"
    assert answer.stderr == ""


def test_prune_asks_and_removes_what_was_left(cli: Cli, home: Home) -> None:
    partial = put(home.models_dir / "o/r/.x.gguf.0123456789abcdef.part", b"12345")
    staging = put(home.models_dir / ".import-0123456789ab/model/x.gguf").parent.parent
    put(home.models_dir / "o/r/x.gguf")
    assert cli.json("index", "prune", "--dry-run")["removed"][0]["path"] == str(partial)
    assert cli("index", "prune").status == 2
    assert partial.exists()
    answer = cli.done("index", "prune", "-y")
    assert answer.stdout.endswith(" KiB\n")
    assert not partial.exists()
    assert not staging.exists()
    assert cli.json("index", "prune") == {"dry_run": False, "removed": [], "freed_bytes": 0}
    assert len(cli.json("list")["models"]) == 1
