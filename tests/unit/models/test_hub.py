"""What the hub tells, and what it means when it does not."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr.download import Patience
from llama_mgr.errors import (
    BadReferenceError,
    HashMismatchError,
    LlamaMgrError,
    RefusedError,
    RemoteDeniedError,
    RemoteError,
    UnknownRepositoryError,
)
from llama_mgr.models.gguf import parse_gguf
from llama_mgr.models.hub import Hub, HubRepo
from llama_mgr.report import SilentReporter
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import fetched
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

REPO = "owner/model-GGUF"
FILES = {
    "model-Q4_K_M.gguf": b"GGUF" + bytes(1000),
    "deep/er/model-Q8_0.gguf": b"GGUF" + bytes(2000),
    "README.md": b"# hi",
}
PATIENCE = Patience(tries=2, first_delay_s=0.001, stall_s=2)


@pytest.fixture
def local() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.add(REPO, FILES, license="mit", tags=("text",), downloads=1234)
        yield hub


def client(local: LocalHub, **environ: str) -> Hub:
    return Hub({**local.environ, **environ}, SilentReporter(), PATIENCE)


def error_of(hub: Hub, repo: str = REPO, revision: str | None = None) -> LlamaMgrError:
    with pytest.raises(LlamaMgrError) as caught:
        hub.repository(repo, revision)
    return caught.value


# -- repositories ------------------------------------------------------------------------------------------------------


def test_a_repository_is_told_with_its_commit_hashes_and_facts(local: LocalHub) -> None:
    found = client(local).repository(REPO)
    (commit,) = local.repos[REPO].commits
    assert (found.repo, found.commit, found.gated, found.license) == (REPO, commit, False, "mit")
    assert (found.downloads, found.updated_at) == (1234, "2026-10-01T12:00:00Z")
    for file in found.files:
        listed = local.repos[REPO].commits[commit][file.name]
        assert (file.repo, file.revision, file.size_bytes) == (REPO, commit, len(FILES[file.name]))
        assert (file.sha256, file.git_sha1) == ((listed.sha256, "") if listed.lfs else ("", listed.git_sha1))
    assert {file.name for file in found.files} == set(FILES)


def test_a_listing_of_many_pages_is_read_to_its_end(local: LocalHub) -> None:
    names = {f"shard-{number:04}.gguf": b"GGUF" for number in range(2500)}
    local.add(REPO, names)
    assert {file.name for file in client(local).repository(REPO).files} == set(names)
    assert len(local.seen("hub", "/tree/")) == 3


def test_the_commit_is_asked_for_first_and_everything_is_read_there(local: LocalHub, tmp_path: Path) -> None:
    hub = client(local)
    found = hub.repository(REPO)
    local.repos[REPO].commit({"model-Q4_K_M.gguf": b"GGUF, and another one"})  # the branch moves
    fetched(hub, found.files[-1], tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == FILES[found.files[-1].name]
    info, *others = local.requests
    assert "/tree/" not in info.path
    assert all(found.commit in one.path for one in others if one.origin == "hub")


@pytest.mark.parametrize("form", ["branch", "commit", "short"])
def test_a_revision_is_a_branch_or_a_commit(form: str, local: LocalHub) -> None:
    commit = local.repos[REPO].commit({"old.gguf": b"GGUF"}, "feature/x")
    revision = {"branch": "feature/x", "commit": commit, "short": commit[:9]}[form]
    found = client(local).repository(REPO, revision)
    assert (found.commit, [file.name for file in found.files]) == (commit, ["old.gguf"])


def test_the_hubs_spelling_of_the_name_is_taken_and_no_other_name(local: LocalHub) -> None:
    def told(name: str) -> HubRepo:
        local.mend()
        body = json.dumps({"id": name, "sha": local.repos[REPO].branches["main"]}).encode()
        local.fault(Fault(status=200, body=body), origin="hub", part="expand=sha", times=1)
        return client(local).repository(REPO)

    assert told("Owner/Model-GGUF").repo == "Owner/Model-GGUF"
    assert told("../../etc").repo == REPO


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 404])
def test_an_unknown_repository_is_named_with_the_login(status: int, local: LocalHub) -> None:
    local.unknown_status = status
    error = error_of(client(local), "owner/none")
    assert isinstance(error, UnknownRepositoryError)
    assert error.message == "cannot find 'owner/none': the hub has no such repository, or it is private"
    assert "HF_TOKEN" in (error.hint or "")


def test_with_a_login_the_place_of_the_token_is_named_and_never_the_token(local: LocalHub) -> None:
    local.tokens.add("hf_canary")
    error = error_of(client(local, HF_TOKEN="hf_canary"), "owner/none")
    assert isinstance(error, UnknownRepositoryError)
    assert "the token comes from HF_TOKEN" in (error.hint or "")
    assert "canary" not in f"{error} {error.hint} {error!r}"


def test_a_private_repository_is_there_for_its_owner_only(local: LocalHub) -> None:
    local.add("owner/secret", FILES, private=True)
    assert isinstance(error_of(client(local), "owner/secret"), UnknownRepositoryError)
    assert client(local, HF_TOKEN="hf_good").repository("owner/secret").repo == "owner/secret"


def test_a_token_that_nobody_knows_is_told_apart(local: LocalHub) -> None:
    error = error_of(client(local, HF_TOKEN="hf_old"))
    assert isinstance(error, RemoteDeniedError)
    assert (error.message, error.hint) == (
        f"cannot read '{REPO}': the hub does not accept the token", "check the token, which comes from HF_TOKEN",
    )  # fmt: skip


@pytest.mark.parametrize("token", ["", "hf_good"])
def test_the_terms_of_a_gated_repository_are_named(token: str, local: LocalHub, tmp_path: Path) -> None:
    local.add("owner/gated", FILES, gated="manual")
    hub = client(local, HF_TOKEN=token)
    found = hub.repository("owner/gated")
    assert found.gated
    for work in (
        lambda: fetched(hub, found.files[0], tmp_path / "x"),
        lambda: hub.fetch_small(found.files[0], 10),
        lambda: hub.source(found.files[0]).read(0, 4),
    ):
        with pytest.raises(RemoteDeniedError, match="terms") as caught:
            work()
        assert f"accept the terms at {local.url}/owner/gated" in (caught.value.hint or "")
        assert "HF_TOKEN" in (caught.value.hint or "")


def test_whoever_was_granted_a_gated_repository_gets_it(local: LocalHub, tmp_path: Path) -> None:
    local.add("owner/gated", FILES, gated="auto", granted={"hf_good"})
    hub = client(local, HF_TOKEN="hf_good")
    assert fetched(hub, hub.repository("owner/gated").files[0], tmp_path / "x").is_file()


def test_a_disabled_repository_is_refused(local: LocalHub) -> None:
    disabled = Fault(status=403, headers={"X-Error-Message": "Access to this resource is disabled."})
    local.fault(disabled, origin="hub")
    error = error_of(client(local))
    assert isinstance(error, RemoteDeniedError)
    assert "disabled" in error.message


def test_an_unknown_revision_is_named(local: LocalHub) -> None:
    error = error_of(client(local), revision="v9")
    assert isinstance(error, UnknownRepositoryError)
    assert f"cannot find '{REPO}@v9': the repository has no such branch, tag or commit" in error.message


@pytest.mark.parametrize("name", ["a--b/c", "a/b.git", "a/b/c", "a b/c", "-a/b"])
def test_a_name_that_the_hub_cannot_have_is_not_asked_for(name: str, local: LocalHub) -> None:
    assert isinstance(error_of(client(local), name), BadReferenceError)
    assert local.requests == []


def test_offline_means_that_nothing_is_asked(local: LocalHub) -> None:
    for hub in (client(local, HF_HUB_OFFLINE="1"), client(local, HF_HUB_OFFLINE="true")):
        error = error_of(hub)
        assert isinstance(error, RemoteError)
        assert error.hint == "unset HF_HUB_OFFLINE"
        with pytest.raises(RemoteError, match="HF_HUB_OFFLINE"):
            hub.search("x", 1)
    assert local.requests == []


def test_a_hub_that_is_away_is_named() -> None:
    error = error_of(Hub({"HF_ENDPOINT": "http://127.0.0.1:9"}, SilentReporter(), PATIENCE))
    assert isinstance(error, RemoteError)
    assert "127.0.0.1 cannot be reached" in error.message


# -- answers that make no sense ----------------------------------------------------------------------------------------

ENTRY = {
    "type": "file",
    "path": "a.gguf",
    "size": 4,
    "oid": "a" * 40,
    "lfs": {"oid": "b" * 64, "size": 4, "pointerSize": 1},
}
NONSENSE: dict[str, object] = {
    "a page": b"<html>log in to the hotel</html>",
    "nothing": b"",
    "not JSON": b"{",
    "not UTF-8": b'["\xff"]',
    "deep nesting": b"[" * 50_000,
    "null": None,
    "a number": 5,
    "words": ["a", "b"],
    "no type": [{"path": "a"}],
    "no path": [{**ENTRY, "path": None}],
    "a path of another type": [{**ENTRY, "path": ["a"]}],
    "a negative size": [{**ENTRY, "size": -1, "lfs": None}],
    "a size of another type": [{**ENTRY, "lfs": {**ENTRY["lfs"], "size": "4"}}],  # type: ignore[dict-item]
    "an endless size": b'[{"type": "file", "path": "a", "size": 1e999, "oid": "%b"}]' % (b"a" * 40),
    "a hash that is none": [{**ENTRY, "lfs": {**ENTRY["lfs"], "oid": "../../x"}}],  # type: ignore[dict-item]
    "no hash": [{**ENTRY, "lfs": None, "oid": None}],
}


@pytest.mark.parametrize("what", NONSENSE)
@pytest.mark.parametrize("part", ["expand=sha", "/tree/"])
def test_an_answer_without_sense_is_no_hubs(part: str, what: str, local: LocalHub) -> None:
    found = NONSENSE[what]
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    local.fault(Fault(status=200, body=body), origin="hub", part=part)
    error = error_of(client(local))
    assert isinstance(error, RemoteError), error
    assert re.search(r"at '127\.0\.0\.1': what answered is not a Hugging Face hub", error.message)


@pytest.mark.parametrize("sha", ["main", "A" * 40, "a" * 39, "../x", 5, None])
def test_a_commit_that_is_none_is_refused(sha: object, local: LocalHub) -> None:
    body = json.dumps({"id": REPO, "sha": sha}).encode()
    local.fault(Fault(status=200, body=body), origin="hub", part="expand=sha")
    assert isinstance(error_of(client(local)), RemoteError)
    assert local.seen("hub", "/tree/") == []


@pytest.mark.parametrize(
    "names", [["../../.ssh/authorized_keys"], ["a.gguf", "/etc/x"], ["C:\\x"], ["a\0b"], ["Model.gguf", "model.gguf"]]
)
def test_one_bad_name_spoils_the_repository(names: list[str], local: LocalHub) -> None:
    local.add(REPO, {**FILES, **dict.fromkeys(names, b"GGUF")})
    error = error_of(client(local))
    assert isinstance(error, RefusedError)
    assert local.served.total() == 0


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_small_file_is_checked_by_its_git_hash(local: LocalHub, tmp_path: Path) -> None:
    hub = client(local)
    (readme,) = [file for file in hub.repository(REPO).files if file.name == "README.md"]
    assert hub.fetch_small(readme, 100) == b"# hi"
    assert hub.fetch_small(readme, 2) == b"# "
    assert fetched(hub, readme, tmp_path / "README.md").read_bytes() == b"# hi"
    local.fault(Fault(edit=lambda chunk: b"?" * len(chunk)), origin="hub", part="resolve-cache")
    with pytest.raises(HashMismatchError):
        hub.fetch_small(readme, 100)
    with pytest.raises(HashMismatchError, match="its git hash is"):
        fetched(hub, readme, tmp_path / "again.md")


def test_an_empty_file_needs_no_request(local: LocalHub) -> None:
    local.add(REPO, {"README.md": b""})
    hub = client(local)
    assert hub.fetch_small(hub.repository(REPO).files[0], 100) == b""


def test_a_header_is_read_without_the_rest(local: LocalHub) -> None:
    content = model_bytes(layers=12)
    local.add(REPO, {"model.gguf": content})
    hub = client(local)
    header = parse_gguf(hub.source(hub.repository(REPO).files[0]), "model.gguf")
    assert header.metadata["general.architecture"] == "llama"
    assert local.served["model.gguf"] < len(content) / 4


def test_a_part_from_a_server_without_ranges_is_refused_unless_it_is_the_beginning(local: LocalHub) -> None:
    hub = client(local)
    file = hub.repository(REPO).files[0]
    local.fault(Fault(ignore_range=True))
    assert hub.source(file).read(0, 4) == b"GGUF"
    with pytest.raises(RemoteError, match="another part, or all of it"):
        hub.source(file).read(100, 4)
    assert hub.source(file).read(file.size_bytes, 4) == b""


# -- search ------------------------------------------------------------------------------------------------------------


def test_search_shows_only_what_has_gguf_files(local: LocalHub) -> None:
    local.add("liar/model-GGUF", {"model.safetensors": b"x"}, tags=("gguf",), downloads=10**6)
    (hit,) = client(local).search("model", 10)
    assert (hit.repo, hit.ggufs, hit.downloads, hit.likes, hit.gated) == (REPO, 2, 1234, 5, False)
    assert hit.updated_at == "2026-10-01T12:00:00Z"


def test_search_goes_on_from_page_to_page(local: LocalHub) -> None:
    local.repos.clear()
    for number in range(30):
        files: dict[str, bytes] = {"m.gguf": b"GGUF"} if number % 3 else {"m.bin": b"x"}
        local.add(f"owner/m-{number:02}", files, tags=("gguf",), downloads=1000 - number)
    found = [hit.repo for page in (1, 2, 3, 4) for hit in client(local).search("", 6, page)]
    assert found == [f"owner/m-{number:02}" for number in range(30) if number % 3]


@pytest.mark.parametrize(("order", "first"), [("downloads", "o/many"), ("likes", "o/liked"), ("updated", "o/new")])
def test_search_has_three_orders(order: str, first: str, local: LocalHub) -> None:
    files = {"m.gguf": b"GGUF"}
    local.add("o/many", files, downloads=9999)
    local.add("o/liked", files, likes=9999)
    local.add("o/new", files, updated_at="2027-01-01T00:00:00.000Z")
    assert client(local).search("", 1, order=order)[0].repo == first  # type: ignore[arg-type]


# -- the environment ---------------------------------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used(local: LocalHub) -> None:
    with LocalHub() as proxy:
        error_of(Hub({**local.environ, "http_proxy": proxy.url}, SilentReporter(), PATIENCE))
        assert proxy.requests[0].path.startswith(local.url)
        hub = Hub({**local.environ, "HTTP_PROXY": proxy.url, "no_proxy": "127.0.0.1"}, SilentReporter(), PATIENCE)
        assert hub.repository(REPO).repo == REPO
    assert len(proxy.requests) == 1


def test_a_token_is_not_sent_without_encryption() -> None:
    listener = Listener()
    hub = Hub({"HF_ENDPOINT": "http://hub.test:8080", "HF_TOKEN": "hf_canary"}, listener)
    assert hub.headers("http://hub.test:8080/api") == {}
    assert hub.headers("http://hub.test:8080/api") == {}
    assert listener.warnings == ["HF_TOKEN is not sent, because hub.test is reached without encryption"]


@pytest.mark.parametrize(
    ("url", "goes"),
    [
        ("https://hub.test/x", True),
        ("https://HUB.test:443/x", True),
        ("http://hub.test/x", False),
        ("https://hub.test:444/x", False),
        ("https://hub.test.evil/x", False),
        ("https://sub.hub.test/x", False),
        ("https://huggingface.co/x", False),
    ],
)
def test_a_token_goes_to_the_exact_origin_only(url: str, goes: bool) -> None:
    hub = Hub({"HF_ENDPOINT": "https://hub.test/", "HF_TOKEN": "hf_canary"}, SilentReporter())
    assert bool(hub.headers(url)) == goes
