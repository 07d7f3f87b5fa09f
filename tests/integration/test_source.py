"""Sources from real git repositories on this disk: which versions are found, and what the network does to them."""

import os
import shutil
import socket
import subprocess
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest

from llama_mgr.build import git_program
from llama_mgr.build.repository import UPSTREAM_URL
from llama_mgr.build.source import Sources, Wanted
from llama_mgr.errors import (
    LlamaMgrError,
    MissingToolsError,
    NotFoundError,
    RemoteDeniedError,
    RemoteError,
    UnknownVersionError,
)
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import BuildSettings, Settings
from tests.tools.fake_program import make_program
from tests.tools.http_server import Quiet, serving
from tests.tools.listener import Listener
from tests.tools.scratch_repository import Scratch, git_config
from tests.tools.tiny_repository import TinyRepository, run_git

NOWHERE = "https://127.0.0.1:1"


@pytest.mark.parametrize(
    ("version", "name", "label", "number"),
    [
        ("b11434", "b11434", "b11434", 11434),
        ("b11401", "b11401", "b11401", 11401),
        ("v0.6.0", "v0.6.0", "v0.6.0", 11420),
        ("latest", "b11434", "b11434", 11434),
        ("master", "master", "master", 11434),
        ("feature-x", "feature-x", "feature-x", 11435),
        ("pr/123", "pull/123", "pr-123", 11435),
    ],
)
def test_every_kind_of_version_is_found(
    sources: Sources, tiny_repository: TinyRepository, version: str, name: str, label: str, number: int
) -> None:
    source = sources.locate(Wanted(version, repo_url=tiny_repository.url))

    assert (source.kind, source.commit, source.version, source.build_number, source.location) == (
        "git", tiny_repository.commits[name], label, number, tiny_repository.url,
    )  # fmt: skip


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_a_commit_is_found_by_its_whole_or_abbreviated_id(
    sources: Sources, tiny_repository: TinyRepository, digits: int
) -> None:
    commit = tiny_repository.commits["b11401"]

    for text in (commit[:digits], commit[:digits].upper()):
        source = sources.locate(Wanted(text, repo_url=tiny_repository.url))
        assert (source.commit, source.version, source.build_number) == (commit, commit[:9], 11401)


def test_a_branch_may_be_named_with_its_own_option(sources: Sources, tiny_repository: TinyRepository) -> None:
    source = sources.locate(Wanted(branch="feature-x", repo_url=tiny_repository.url))

    assert (source.commit, source.version) == (tiny_repository.commits["feature-x"], "feature-x")
    with pytest.raises(UnknownVersionError) as caught:
        sources.locate(Wanted(branch="feature-y", repo_url=tiny_repository.url))
    assert caught.value.hint == "did you mean 'feature-x'?"


def test_the_tree_is_read_without_a_checkout(sources: Sources, tiny_repository: TinyRepository) -> None:
    tree = sources.locate(Wanted("b11434", repo_url=tiny_repository.url)).tree

    assert "project(" in (tree.read("CMakeLists.txt") or "")
    assert (tree.read("LICENSE") or "").strip()
    assert tree.has("tools/server")
    assert tree.has("tools/server/")
    assert tree.has("tools/server/CMakeLists.txt")
    assert not tree.has("tools/serv")
    assert tree.read("tools") is None
    assert tree.read("nope") is None


def test_a_build_number_without_a_tag_is_counted(
    sources: Sources, tiny_repository: TinyRepository, listener: Listener
) -> None:
    source = sources.locate(Wanted("b11410", repo_url=tiny_repository.url))

    assert (source.version, source.build_number) == ("b11410", 11410)
    assert run_git("rev-list", "--count", source.commit, cwd=tiny_repository.path) == "11410"
    assert listener.notes == [f"b11410 has no tag; it is commit {source.commit[:9]}"]
    listener.bars.clear()
    assert sources.locate(Wanted("b11410", repo_url=tiny_repository.url)) == source
    assert listener.bars == []


def test_a_tag_is_found_by_name_even_where_it_looks_like_an_object(sources: Sources, scratch: Scratch) -> None:
    decoy = scratch.commit()
    meant = scratch.commit()
    scratch.git("tag", decoy[:7], meant)

    assert sources.locate(Wanted(decoy[:7], repo_url=scratch.url)).commit == meant


def test_in_a_shortened_history_the_tag_says_the_number(sources: Sources, scratch: Scratch) -> None:
    tagged = scratch.commit("b11434")
    scratch.commit()

    assert sources.locate(Wanted("b11434", repo_url=scratch.url)).build_number == 11434
    assert sources.locate(Wanted(tagged, repo_url=scratch.url)).build_number == 11434
    assert sources.locate(Wanted("master", repo_url=scratch.url)).build_number == 2


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["b9", "b10"], "b10"),
        (["b10", "b9"], "b10"),
        (["b10", "v0.6.0"], "v0.6.0"),
        (["v0.6.0", "b10"], "b10"),
        (["v0.10.0", "v0.9.0"], "v0.10.0"),
        (["b10", "v9.0.0-rc1"], "b10"),
        (["b10", "nightly"], "b10"),
    ],
)
def test_latest_is_the_newest_release_by_what_the_tags_point_at(
    sources: Sources, scratch: Scratch, tags: list[str], expected: str
) -> None:
    for tag in tags:
        scratch.commit(tag)

    assert sources.locate(Wanted(repo_url=scratch.url)).version == expected
    assert sources.locate(Wanted(repo_url=scratch.url)).version == expected


def test_latest_of_a_repository_without_tags_is_its_default_branch(
    sources: Sources, scratch: Scratch, listener: Listener
) -> None:
    commit = scratch.commit()

    source = sources.locate(Wanted(repo_url=scratch.url))

    assert (source.commit, source.version) == (commit, "master")
    assert "no tags" in listener.notes[0]


def test_new_tags_and_moved_branches_are_seen(sources: Sources, scratch: Scratch) -> None:
    scratch.commit("b1")
    sources.locate(Wanted(repo_url=scratch.url))
    second = scratch.commit("b2")

    assert sources.locate(Wanted("b2", repo_url=scratch.url)).commit == second
    third = scratch.commit()
    assert sources.locate(Wanted("master", repo_url=scratch.url)).commit == third
    scratch.git("reset", "--quiet", "--hard", second)
    assert sources.locate(Wanted(branch="master", repo_url=scratch.url)).commit == second


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ("b11434x", "did you mean 'b11434'?"),
        ("b99999", "nearest is b11434"),
        ("feature-z", "did you mean 'feature-x'?"),
        ("v0.6.1", "did you mean 'v0.6.0'?"),
        ("deadbee", None),
        ("0" * 40, None),
        ("pr/9", None),
    ],
)
def test_an_unknown_version_names_the_repository_and_the_nearest(
    sources: Sources, tiny_repository: TinyRepository, version: str, hint: str | None
) -> None:
    with pytest.raises(UnknownVersionError) as caught:
        sources.locate(Wanted(version, repo_url=tiny_repository.url))

    assert caught.value.exit_status == 3
    assert version in caught.value.message
    assert tiny_repository.url in caught.value.message
    assert caught.value.hint == hint


def test_a_missing_repository_is_not_found(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        sources.locate(Wanted("b1", repo_url=(tmp_path / "none").as_uri()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError):
        sources.locate(Wanted("b1", repo_url=(tmp_path / "empty").as_uri()))


def test_an_empty_repository_has_no_latest(sources: Sources, scratch: Scratch) -> None:
    with pytest.raises(UnknownVersionError):
        sources.locate(Wanted(repo_url=scratch.url))


def test_without_git_the_tool_is_named(home: Home, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    lonely = Sources(home, {**environ, "PATH": str(tmp_path / "bin")}, SilentReporter(), Settings())

    with pytest.raises(MissingToolsError, match="cannot find the tool 'git'") as caught:
        lonely.locate(Wanted("b1", repo_url="file:///x"))
    assert caught.value.hint == "install git, or use --source snapshot"


@pytest.mark.parametrize("git", ["/nonexistent/git", "git", "/etc"])
def test_a_chosen_git_that_is_no_program_is_a_missing_tool(home: Home, environ: dict[str, str], git: str) -> None:
    settings = Settings(build=BuildSettings(tools={"git": git}))
    sources = Sources(home, environ, SilentReporter(), settings)
    with pytest.raises(MissingToolsError, match=f"build.tools.git names {git}") as caught:
        sources.locate(Wanted("b1", repo_url="file:///x"))
    assert (caught.value.hint or "").startswith("llama-mgr config set build.tools.git ")


def test_a_chosen_git_is_the_one_that_runs(
    home: Home, environ: dict[str, str], tmp_path: Path, tiny_repository: TinyRepository
) -> None:
    real = shutil.which("git", path=environ["PATH"])
    git = make_program(tmp_path / "own", "git", script=f'touch {tmp_path / "ran"}; exec {real} "$@"')
    sources = Sources(home, environ, SilentReporter(), Settings(build=BuildSettings(tools={"git": str(git)})))
    assert sources.locate(Wanted("b11401", repo_url=tiny_repository.url)).version == "b11401"
    assert (tmp_path / "ran").exists()


def test_what_was_fetched_once_needs_no_network(
    sources: Sources, tiny_repository: TinyRepository, tmp_path: Path, listener: Listener, home: Home
) -> None:
    copy = tmp_path / "copy.git"
    shutil.copytree(tiny_repository.path, copy)
    commit = tiny_repository.commits["b11401"]
    sources.locate(Wanted("b11401", repo_url=copy.as_uri()))
    copy.rename(tmp_path / "away.git")
    listener.bars.clear()

    for version in ("b11401", commit, commit[:8]):
        source = sources.locate(Wanted(version, repo_url=copy.as_uri()))
        assert source.commit == commit
        sources.check_out(source, home.staging_dir / "x" / "source")
        assert (home.staging_dir / "x" / "source" / "CMakeLists.txt").is_file()
        sources.release(home.staging_dir / "x" / "source")
    assert listener.bars == []
    with pytest.raises(LlamaMgrError):
        sources.locate(Wanted("latest", repo_url=copy.as_uri()))
    assert sources.locate(Wanted("b11401", repo_url=copy.as_uri())).commit == commit


@pytest.mark.parametrize("filters", ["true", "false"])
def test_a_remote_may_know_filters_or_not(
    sources: Sources, scratch: Scratch, home: Home, listener: Listener, filters: str
) -> None:
    scratch.git("config", "uploadpack.allowFilter", filters)
    scratch.commit("b1", file="old")
    scratch.commit("b2")

    source = sources.locate(Wanted("b2", repo_url=scratch.url))

    blobs = sum("fetch the files" in bar for bar in listener.bars)
    assert blobs == (1 if filters == "true" else 0)
    sources.check_out(source, home.staging_dir / "x")
    assert (home.staging_dir / "x" / "old").is_file()


def test_an_unreachable_remote_is_worth_retrying(sources: Sources) -> None:
    with pytest.raises(RemoteError) as caught:
        sources.locate(Wanted("b1", repo_url=f"{NOWHERE}/llama.cpp"))

    assert caught.value.exit_status == 6
    assert "127.0.0.1" in caught.value.message


def test_a_silent_remote_is_given_up(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_program, "QUIET_LIMIT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started_s = time.monotonic()
        with pytest.raises(RemoteError, match="said nothing for 1 s"):
            sources.locate(Wanted("b1", repo_url=f"https://127.0.0.1:{silent.getsockname()[1]}/x"))

    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize(
    ("status", "error"), [(401, RemoteDeniedError), (403, RemoteDeniedError), (404, NotFoundError), (503, RemoteError)]
)
def test_what_a_server_answers_becomes_the_right_error(
    sources: Sources, status: int, error: type[LlamaMgrError]
) -> None:
    class Answers(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(HTTPServer(("127.0.0.1", 0), Answers)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/llama.cpp"
        with pytest.raises(LlamaMgrError) as caught:
            sources.locate(Wanted("b1", repo_url=url, allow_http=True))

    assert type(caught.value) is error


class GitOverHttp(Quiet, BaseHTTPRequestHandler):
    """git's own HTTP back end, behind Python's HTTP server."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        variables = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.server.root), "GIT_HTTP_EXPORT_ALL": "1",  # type: ignore[attr-defined]
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "GIT_CONFIG_GLOBAL": os.devnull,
        }  # fmt: skip
        ended = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=True)
        head, _, content = ended.stdout.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().splitlines():
            self.send_header(*line.split(": ", 1))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 (http.server looks for this name)


def test_a_repository_is_fetched_over_http(sources: Sources, scratch: Scratch, listener: Listener, home: Home) -> None:
    scratch.git("config", "uploadpack.allowFilter", "true")
    scratch.commit("b1", file="old")
    expected = scratch.commit("b2")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), GitOverHttp)) as server:
        server.root = scratch.directory.parent  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{server.server_address[1]}/scratch/.git"
        source = sources.locate(Wanted(repo_url=url, allow_http=True))

    sources.check_out(source, home.staging_dir / "x")  # the server is gone: everything is here

    assert (source.commit, source.version) == (expected, "b2")
    assert [bar.split(" ")[0:2] for bar in listener.bars] == [["clone", url], ["fetch", "the"]]
    assert (home.staging_dir / "x" / "old").is_file()


def test_the_users_git_configuration_counts(
    sources: Sources, environ: dict[str, str], tiny_repository: TinyRepository
) -> None:
    git_config(environ, f'[url "{tiny_repository.url}"]', f"  insteadOf = {UPSTREAM_URL}")

    source = sources.locate(Wanted("b11401"))

    assert (source.commit, source.location) == (tiny_repository.commits["b11401"], UPSTREAM_URL)
