"""`info`, against a hub that runs here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.side_car import ModelRecord, write_record
from llama_mgr.models.traits import traits_of
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import OWNER_REPO, claim_size, projector, quants, shards
from tests.tools.local_hub import LocalHub

CARD = b"""---
license: mit
---
<!-- hidden -->
# Tiny \x1b[31mred

See [the paper](https://paper.test/x).
"""


@pytest.fixture
def hub(environ: dict[str, str]) -> Iterator[LocalHub]:
    with LocalHub() as made:
        files = {**quants("Q4_K_M", "Q8_0"), **projector(), "README.md": CARD}
        made.add(OWNER_REPO, files, license="mit", downloads=12345)
        environ.update(made.environ)
        yield made


def put_into_library(hub: LocalHub, home: Home, name: str) -> Path:
    """Put a file of the repository where `pull` puts it."""
    (commit,) = hub.repos[OWNER_REPO].commits
    file = hub.repos[OWNER_REPO].commits[commit][name]
    target = home.models_dir / OWNER_REPO / name
    target.parent.mkdir(parents=True)
    assert isinstance(file.content, bytes)
    target.write_bytes(file.content)
    record = ModelRecord(
        source=f"hf:{OWNER_REPO}@{commit}/{name}", sha256=file.sha256, size_bytes=file.size_bytes, downloaded_at="x",
        origin="hub", repo=OWNER_REPO, revision=commit, file=name,
    )  # fmt: skip
    write_record(target, record)
    return target


def test_a_repository_is_one_page(hub: LocalHub, cli: Cli, home: Home) -> None:
    put_into_library(hub, home, "tiny-Q8_0.gguf")
    page = cli.done("info", OWNER_REPO).stdout
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert lines[0] == OWNER_REPO
    assert f"page: {hub.url}/{OWNER_REPO}" in lines
    assert "downloads: 12,345 in the last 30 days" in lines
    assert "license: mit" in lines
    rows = {line.split()[-5 if line.endswith("yes") else -4]: line for line in lines if "KiB" in line and "ram" in line}
    assert rows["Q4_K_M"].startswith("* Q4_K_M")
    assert rows["Q8_0"].endswith("ram yes")
    assert "projector: mmproj-F16.gguf" in page
    assert "architecture: llama" in lines
    assert page.endswith("# Tiny \\x1b[31mred\n\nSee [the paper](https://paper.test/x).\n")


def test_the_document_says_the_same_and_nothing_else_is_kept(
    hub: LocalHub, cli: Cli, home: Home, tmp_path: Path
) -> None:
    place = put_into_library(hub, home, "tiny-Q4_K_M.gguf")
    claim_size(hub, OWNER_REPO, "tiny-F16.gguf", 1 << 45, tmp_path / "none")
    document = cli.json("info", OWNER_REPO)
    assert list(home.models_dir.rglob("*.gguf")) == [place]
    (commit,) = hub.repos[OWNER_REPO].commits
    assert (document["repo"], document["commit"], document["gated"]) == (OWNER_REPO, commit, False)
    first, second, third = document["quants"]
    assert (third["quant"], third["fits"]) == ("F16", "no")
    assert (first["quant"], first["is_chosen"], first["local"]) == ("Q4_K_M", True, [str(place)])
    assert (second["quant"], second["is_chosen"], second["local"]) == ("Q8_0", False, [])
    assert first["files"] == ["tiny-Q4_K_M.gguf"]
    assert first["size_bytes"] == len(quants("Q4_K_M")["tiny-Q4_K_M.gguf"])
    chosen = document["chosen"]
    assert chosen["header"]["architecture"] == "llama"
    assert chosen["header"]["parameters"] > 0
    memory = chosen["memory"]
    parts = memory["weights_bytes"] + memory["kv_cache_bytes"] + memory["compute_bytes"]
    assert memory["total_bytes"] == parts
    assert memory["weights_bytes"] == first["size_bytes"] + document["projectors"][0]["size_bytes"]
    assert document["card"].startswith("# Tiny")


def test_a_revision_and_an_alias_with_a_quant_can_be_named(hub: LocalHub, cli: Cli) -> None:
    hub.repos[OWNER_REPO].commit(quants("Q5_K_M"), "old")
    assert [one["quant"] for one in cli.json("info", f"{OWNER_REPO}@old")["quants"]] == ["Q5_K_M"]
    cli.done("alias", "add", "mine", f"{OWNER_REPO}:Q8_0")
    assert cli.json("info", "mine")["chosen"]["quant"] == "Q8_0"


def test_shards_are_one_quant_and_read_together(hub: LocalHub, cli: Cli, tmp_path: Path) -> None:
    hub.add(OWNER_REPO, {**shards(3), **quants("Q8_0")})
    document = cli.json("info", f"{OWNER_REPO}:q4_k_m")
    assert len(document["quants"][0]["files"]) == 3
    (tmp_path / "whole.gguf").write_bytes(quants("Q4_K_M")["tiny-Q4_K_M.gguf"])
    whole = traits_of(read_gguf(tmp_path / "whole.gguf"), "whole.gguf")
    assert document["chosen"]["header"]["parameters"] == whole.parameters


def test_a_set_that_lacks_shards_says_so(hub: LocalHub, cli: Cli) -> None:
    files = shards(3)
    del files["tiny-Q4_K_M-00002-of-00003.gguf"]
    hub.add(OWNER_REPO, files)
    page = cli.done("info", OWNER_REPO).stdout
    assert "lacks shard 2 of 3" in page
    assert "2 of 3, not whole" in page
    assert cli("info", f"{OWNER_REPO}:Q4_K_M").status == 5


def test_several_models_in_one_repository_leave_the_choice(hub: LocalHub, cli: Cli) -> None:
    hub.add(OWNER_REPO, {"a-Q4_K_M.gguf": model_bytes(), "b-Q4_K_M.gguf": model_bytes(seed=1)})
    document = cli.json("info", OWNER_REPO)
    assert document["chosen"] is None
    assert "several models have this quant" in document["not_chosen"]


def test_a_repository_without_models_is_shown_all_the_same(hub: LocalHub, cli: Cli) -> None:
    hub.add("owner/plain", {"model.safetensors": b"x"})
    assert "it has no model in the GGUF format" in cli.done("info", "owner/plain").stdout
    assert cli("info", "owner/plain:Q4_K_M").status == 3


def test_the_rest_is_shown_when_the_header_cannot_be_read(hub: LocalHub, cli: Cli) -> None:
    hub.add("owner/gated-GGUF", quants("Q4_K_M"), gated="manual")
    page = cli.done("info", "owner/gated-GGUF").stdout
    assert "gated:        yes" in page
    assert "its header cannot be read: cannot read 'owner/gated-GGUF': its owner gives it only to those" in page


@pytest.mark.parametrize(
    ("reference", "status", "words"),
    [
        ("owner/none", 3, "the hub has no such repository, or it is private"),
        (f"{OWNER_REPO}@none", 3, "no such branch, tag or commit"),
        (f"{OWNER_REPO}:Q9_9", 3, "the repository has Q4_K_M"),
        ("nonesuch", 3, "no alias has this name"),
        ("https://web.test/x.gguf", 2, "it is a URL"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_bad_references_have_their_exit_codes(reference: str, status: int, words: str, cli: Cli) -> None:
    answer = cli("info", reference)
    assert (answer.status, words in answer.stderr) == (status, True), answer.stderr
    assert len(answer.stderr.splitlines()) <= 3


def test_a_damaged_library_does_not_hide_the_hub(hub: LocalHub, cli: Cli, home: Home) -> None:
    (home.root / "model-roots.json").write_text('{"schema": 99, "kind": "model-roots"}')
    answer = cli.done("info", OWNER_REPO)
    assert "warning:" in answer.stderr
    assert OWNER_REPO in answer.stdout
    assert hub.requests


def test_bad_settings_of_the_hub_are_named(cli: Cli) -> None:
    answer = cli("info", OWNER_REPO, LLAMA_MGR_HUB_ENDPOINT="hub.test")
    assert (answer.status, "cannot use LLAMA_MGR_HUB_ENDPOINT 'hub.test'" in answer.stderr) == (2, True)
    assert cli("config", "set", "hub.token-file", "token").status == 2
    problems = cli.json("doctor", status=5, LLAMA_MGR_HUB_ENDPOINT="ftp://x")["problems"]
    assert [one for one in problems if "LLAMA_MGR_HUB_ENDPOINT" in one["where"]]


def test_the_settings_name_hub_and_token(hub: LocalHub, cli: Cli, environ: dict[str, str], tmp_path: Path) -> None:
    hub.add("owner/secret-GGUF", quants("Q4_K_M"), private=True)
    (tmp_path / "token").write_text("hf_good\n")
    del environ["HF_ENDPOINT"]
    cli.done("config", "set", "hub.endpoint", hub.url)
    cli.done("config", "set", "hub.token-file", str(tmp_path / "token"))
    assert cli.json("info", "owner/secret-GGUF")["repo"] == "owner/secret-GGUF"
