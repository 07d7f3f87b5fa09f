"""Sources from real git repositories on this disk: what is found, what is refused, and what survives a kill."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from llama_mgr.build import git_program
from llama_mgr.build.repository import UPSTREAM_URL
from llama_mgr.build.source import Source, Sources, Wanted
from llama_mgr.errors import (
    BadInputError,
    BadUrlError,
    BadVersionError,
    IncompleteSourceError,
    IntegrityError,
    LlamaMgrError,
    MissingToolsError,
    NotFoundError,
    RefusedError,
    RemoteDeniedError,
    RemoteError,
    UnknownVersionError,
)
from llama_mgr.paths import Home
from llama_mgr.report import Progress, SilentReporter
from llama_mgr.settings import Settings
from tests.tools.tiny_repository import TinyRepository, run_git

NOWHERE = "https://127.0.0.1:1"


class Listener(SilentReporter):
    """A Reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.bars: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def progress(self, title: str, total: int | None, unit: str) -> Iterator[Progress]:
        self.bars.append(title)
        with super().progress(title, total, unit) as bar:  # type: ignore[arg-type]
            yield bar


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def sources(home: Home, environ: dict[str, str], listener: Listener) -> Sources:
    return Sources(home, environ, listener, Settings())


def git_config(environ: dict[str, str], *lines: str) -> None:
    Path(environ["HOME"], ".gitconfig").write_text("\n".join(lines) + "\n")


class Scratch:
    """A work tree of a small repository that a test may do anything with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seconds = 1_700_000_000
        run_git("init", "--quiet", "--initial-branch=master", str(directory))
        self.url = directory.as_uri()

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
        return run_git(*identity, *words, cwd=self.directory)

    def commit(self, *tags: str, file: str = "CMakeLists.txt") -> str:
        self.seconds += 60
        with (self.directory / file).open("a") as text:
            text.write(f"# {self.seconds}\n")
        self.git("add", "--all")
        self.git("-c", "core.hooksPath=/dev/null", "commit", "--quiet", "-m", "x", f"--date={self.seconds} +0000")
        for tag in tags:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch")


# -- what is found -----------------------------------------------------------------------------------------------------


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
    assert sources.newest(Wanted(repo_url=scratch.url)) == expected


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


# -- what is not there -------------------------------------------------------------------------------------------------


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

    with pytest.raises(MissingToolsError, match="git is not installed"):
        lonely.locate(Wanted("b1", repo_url="file:///x"))


# -- the network -------------------------------------------------------------------------------------------------------


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
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/llama.cpp"
        with pytest.raises(LlamaMgrError) as caught:
            sources.locate(Wanted("b1", repo_url=url, allow_http=True))
        server.shutdown()

    assert type(caught.value) is error


def test_the_users_git_configuration_counts(
    sources: Sources, environ: dict[str, str], tiny_repository: TinyRepository
) -> None:
    git_config(environ, f'[url "{tiny_repository.url}"]', f"  insteadOf = {UPSTREAM_URL}")

    source = sources.locate(Wanted("b11401"))

    assert (source.commit, source.location) == (tiny_repository.commits["b11401"], UPSTREAM_URL)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (Wanted("--upload-pack=touch {canary}"), BadVersionError),
        (Wanted("-ccore.sshCommand=touch {canary}"), BadVersionError),
        (Wanted("a..b"), BadVersionError),
        (Wanted(branch="--upload-pack=touch {canary}"), BadVersionError),
        (Wanted(branch="x y"), BadVersionError),
        (Wanted(branch=""), BadVersionError),
        (Wanted("b1", repo_url="ext::sh -c touch% {canary}"), RefusedError),
        (Wanted("b1", repo_url="EXT::sh -c touch% {canary}"), RefusedError),
        (Wanted("b1", repo_url="fd::17"), RefusedError),
        (Wanted("b1", repo_url="-u./x"), RefusedError),
        (Wanted("b1", repo_url="--upload-pack=touch {canary}"), RefusedError),
        (Wanted("b1", repo_url="-oProxyCommand=touch {canary}@h:x"), RefusedError),
        (Wanted("b1", repo_url="ssh://-oProxyCommand=touch%20{canary}/x"), BadUrlError),
        (Wanted("b1", repo_url="http://127.0.0.1:1/x"), RefusedError),
        (Wanted("b1", repo_url="https://u:p@127.0.0.1:1/x"), BadUrlError),
        (Wanted("b1", branch="master"), BadInputError),
        (Wanted(branch="master", kind="snapshot"), BadInputError),
        (Wanted(repo_url="file:///x", kind="snapshot"), BadInputError),
        (Wanted("./x", repo_url="file:///x"), BadInputError),
        (Wanted("v0.6.0", kind="snapshot"), BadInputError),
    ],
)
def test_hostile_wishes_are_refused_and_run_nothing(
    sources: Sources, tmp_path: Path, wanted: Wanted, error: type[LlamaMgrError], listener: Listener
) -> None:
    canary = tmp_path / "canary"
    filled = Wanted(
        wanted.version.replace("{canary}", str(canary)),
        wanted.repo_url and wanted.repo_url.replace("{canary}", str(canary)),
        wanted.branch and wanted.branch.replace("{canary}", str(canary)),
        wanted.kind,
    )

    with pytest.raises(error):
        sources.locate(filled)

    assert not canary.exists()
    assert listener.bars == []


def test_a_forbidden_protocol_from_the_git_configuration_is_refused(
    sources: Sources, environ: dict[str, str], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    git_config(environ, f'[url "ext::touch {canary} #"]', f"  insteadOf = {UPSTREAM_URL}", "[protocol]", "  allow = always")

    with pytest.raises(RefusedError):
        sources.locate(Wanted("b1"))

    assert not canary.exists()


def test_hooks_filters_and_monitors_of_the_user_do_not_run(
    sources: Sources, environ: dict[str, str], scratch: Scratch, tmp_path: Path, home: Home
) -> None:
    canary, hooks = tmp_path / "canary", tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (hooks / name).chmod(0o755)
    git_config(
        environ, "[core]", f"  hooksPath = {hooks}", f"  fsmonitor = {hooks / 'post-checkout'}", "  autocrlf = true",
        '[filter "lfs"]', f"  smudge = touch {canary}", f"  process = touch {canary}", "  required = true",
    )  # fmt: skip
    (scratch.directory / ".gitattributes").write_text("*.bin filter=lfs\n")
    (scratch.directory / "a.bin").write_bytes(b"pointer\n")
    scratch.commit("b1")

    source = sources.locate(Wanted("b1", repo_url=scratch.url))
    sources.check_out(source, home.staging_dir / "x")

    assert (home.staging_dir / "x" / "a.bin").read_bytes() == b"pointer\n"
    assert b"\r" not in (home.staging_dir / "x" / "CMakeLists.txt").read_bytes()
    local = sources.locate(Wanted(str(scratch.directory)))
    assert local.commit == source.commit
    assert not canary.exists()


def test_git_variables_of_the_caller_do_not_lead_astray(
    home: Home, environ: dict[str, str], tiny_repository: TinyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    astray = {
        "GIT_DIR": str(tmp_path), "GIT_WORK_TREE": str(tmp_path), "GIT_OBJECT_DIRECTORY": str(tmp_path),
        "GIT_INDEX_FILE": str(tmp_path / "index"), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.pager",
        "GIT_CONFIG_VALUE_0": f"touch {canary}", "GIT_TRACE": str(canary), "GIT_TEMPLATE_DIR": str(tmp_path),
        "GIT_NAMESPACE": "other", "GIT_EXEC_PATH": str(tmp_path),
    }  # fmt: skip
    for name, value in astray.items():
        monkeypatch.setenv(name, value)  # GitPython starts from this process's own environment

    source = Sources(home, {**environ, **astray}, SilentReporter(), Settings()).locate(
        Wanted("b11434", repo_url=tiny_repository.url)
    )

    assert source.commit == tiny_repository.commits["b11434"]
    assert not canary.exists()


def test_what_a_remote_says_reaches_the_terminal_harmless(
    sources: Sources, environ: dict[str, str], tmp_path: Path
) -> None:
    fake_ssh = tmp_path / "ssh"
    fake_ssh.write_text("#!/bin/sh\nprintf 'fatal: \\033[31mred\\007 \\342\\200\\256\\n' >&2\nexit 255\n")
    fake_ssh.chmod(0o755)
    git_config(environ, "[core]", f"  sshCommand = {fake_ssh}")

    with pytest.raises(LlamaMgrError) as caught:
        sources.locate(Wanted("b1", repo_url="git@example.invalid:llama.cpp"))

    for text in (caught.value.message, *caught.value.tail):
        assert text.isprintable()


# -- work trees --------------------------------------------------------------------------------------------------------


def mirror_of(home: Home) -> Path:
    (mirror,) = home.source_dir.glob("*.git")
    return mirror


def test_a_work_tree_comes_and_goes(sources: Sources, tiny_repository: TinyRepository, home: Home) -> None:
    source = sources.locate(Wanted("b11401", repo_url=tiny_repository.url))
    target = home.staging_dir / "x" / "source"

    sources.check_out(source, target)

    assert run_git("rev-parse", "HEAD", cwd=target) == source.commit
    assert run_git("rev-list", "--count", "HEAD", cwd=target) == "11401"
    assert run_git("status", "--porcelain", cwd=target) == ""
    (target / "build-info.cpp").write_text("made by a build")
    sources.release(target)
    assert not target.exists()
    assert run_git("worktree", "list", cwd=mirror_of(home)).count("\n") == 0
    sources.release(target)


def test_two_work_trees_of_one_commit_stand_side_by_side(
    sources: Sources, tiny_repository: TinyRepository, home: Home
) -> None:
    source = sources.locate(Wanted("b11434", repo_url=tiny_repository.url))
    first, second = home.staging_dir / "1" / "source", home.staging_dir / "2" / "source"

    sources.check_out(source, first)
    sources.check_out(source, second)
    sources.release(first)

    assert run_git("rev-parse", "HEAD", cwd=second) == source.commit


def test_a_work_tree_that_vanished_is_forgotten(sources: Sources, tiny_repository: TinyRepository, home: Home) -> None:
    source = sources.locate(Wanted("b11434", repo_url=tiny_repository.url))
    target = home.staging_dir / "x" / "source"
    sources.check_out(source, target)
    shutil.rmtree(target)

    sources.check_out(source, target)

    assert run_git("worktree", "list", cwd=mirror_of(home)).count("\n") == 1


def test_release_leaves_alone_what_is_not_in_the_home(sources: Sources, scratch: Scratch) -> None:
    scratch.commit("b1")

    sources.release(scratch.directory)

    assert (scratch.directory / "CMakeLists.txt").is_file()
    assert (scratch.directory / ".git").is_dir()


# -- kills, leftovers and company --------------------------------------------------------------------------------------

LOCATE = """
import os, sys
from pathlib import Path
from llama_mgr.build.source import Sources, Wanted
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import Settings
print("ready", flush=True)
source = Sources(Home(Path(sys.argv[1])), os.environ, SilentReporter(), Settings()).locate(Wanted(sys.argv[2], sys.argv[3]))
print(source.commit)
"""


def start_locate(environ: dict[str, str], home: Home, version: str, url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LOCATE, str(home.root), version, url], env=environ, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.faults
def test_a_kill_at_any_moment_never_blocks_the_next_try(
    sources: Sources, environ: dict[str, str], tiny_repository: TinyRepository, home: Home
) -> None:
    expected = tiny_repository.commits["b11434"]
    for delay_ms in range(0, 400, 20):
        shutil.rmtree(home.source_dir, ignore_errors=True)
        child = start_locate(environ, home, "b11434", tiny_repository.url)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay_ms / 1000)
        child.send_signal(signal.SIGKILL)
        child.wait()

        assert sources.locate(Wanted("b11434", repo_url=tiny_repository.url)).commit == expected
        assert sources.locate(Wanted("latest", repo_url=tiny_repository.url)).commit == expected


def test_a_mirror_that_is_no_mirror_is_replaced(sources: Sources, tiny_repository: TinyRepository, home: Home) -> None:
    sources.locate(Wanted("b11434", repo_url=tiny_repository.url))
    (mirror_of(home) / "HEAD").unlink()

    source = sources.locate(Wanted("b11434", repo_url=tiny_repository.url))

    assert source.commit == tiny_repository.commits["b11434"]


def test_leftovers_of_a_killed_git_are_cleared(sources: Sources, scratch: Scratch, home: Home) -> None:
    scratch.commit("b1")
    sources.locate(Wanted(repo_url=scratch.url))
    mirror = mirror_of(home)
    for name in ("packed-refs.lock", "HEAD.lock", "config.lock", "refs/heads/master.lock", "refs/tags/b2.lock"):
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).touch()
    (mirror / "objects" / "pack" / "tmp_pack_x").write_bytes(b"half")
    second = scratch.commit("b2")

    assert sources.locate(Wanted(repo_url=scratch.url)).commit == second
    assert not list(mirror.rglob("*.lock"))
    assert not (mirror / "objects" / "pack" / "tmp_pack_x").exists()


def test_two_at_once_share_one_clone(environ: dict[str, str], tiny_repository: TinyRepository, home: Home) -> None:
    children = [start_locate(environ, home, "b11434", tiny_repository.url) for _ in range(3)]

    said = [child.communicate(timeout=60)[0].split() for child in children]

    assert said == [["ready", tiny_repository.commits["b11434"]]] * 3
    assert [path.suffix for path in home.source_dir.iterdir()] == [".git"]


def _runs(pid: int) -> bool:
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(said.strip()) and not said.startswith("Z")  # a zombie only waits for whoever adopted it


def test_an_interrupted_clone_leaves_no_process_and_no_mirror(
    sources: Sources, home: Home, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh = tmp_path / "ssh"
    fake_ssh.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 600\n")
    fake_ssh.chmod(0o755)
    git_config(environ, "[core]", f"  sshCommand = {fake_ssh}")
    monkeypatch.setattr(git_program, "QUIET_LIMIT_S", 60.0)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()

    with pytest.raises(KeyboardInterrupt):
        sources.locate(Wanted("b1", repo_url="git@example.invalid:llama.cpp"))

    assert not _runs(int((tmp_path / "pid").read_text()))
    assert not list(home.source_dir.glob("*"))
    assert not list(home.staging_dir.glob("*"))


# -- trees of the user's own -------------------------------------------------------------------------------------------


def local(sources: Sources, directory: Path) -> Source:
    return sources.locate(Wanted(str(directory)))


def test_a_clean_work_tree_is_its_commit(sources: Sources, scratch: Scratch) -> None:
    commit = scratch.commit("b11434")

    source = local(sources, scratch.directory)

    assert (source.kind, source.commit, source.build_number) == ("path", commit, 11434)
    assert (source.version, source.location) == ("local-scratch", str(scratch.directory))
    assert source.tree.has("CMakeLists.txt")


def test_every_edit_gives_another_identity(sources: Sources, scratch: Scratch) -> None:
    scratch.commit()
    seen = [local(sources, scratch.directory).commit]
    file = scratch.directory / "CMakeLists.txt"
    for edit in (
        lambda: file.write_text("project(a)"),
        lambda: file.write_text("project(b)"),
        lambda: file.chmod(0o755),
        lambda: (scratch.directory / "untracked.c").write_text("int x;"),
        lambda: (scratch.directory / "untracked.c").rename(scratch.directory / "renamed.c"),
    ):
        edit()
        seen.append(local(sources, scratch.directory).commit)

    assert len(set(seen)) == len(seen) == 6
    assert all(commit.startswith("tree:") for commit in seen[1:])
    assert local(sources, scratch.directory).commit == seen[-1]
    scratch.git("add", "--all")
    assert local(sources, scratch.directory).commit == seen[-1]


def test_a_copy_has_what_a_build_needs_and_no_more(sources: Sources, scratch: Scratch, home: Home) -> None:
    (scratch.directory / ".gitignore").write_text("/build*\n*.gguf\n")
    scratch.commit()
    (scratch.directory / "new.c").write_text("int x;")
    (scratch.directory / "model.gguf").write_bytes(b"GGUF")
    (scratch.directory / "build").mkdir()
    (scratch.directory / "build" / "CMakeCache.txt").touch()
    before = {path: path.lstat().st_mtime_ns for path in scratch.directory.rglob("*")}
    source = local(sources, scratch.directory)

    sources.check_out(source, home.staging_dir / "x" / "source")

    copied = sorted(path.name for path in (home.staging_dir / "x" / "source").iterdir())
    assert copied == [".gitignore", "CMakeLists.txt", "new.c"]
    assert {path: path.lstat().st_mtime_ns for path in scratch.directory.rglob("*")} == before
    sources.release(home.staging_dir / "x" / "source")
    assert not (home.staging_dir / "x" / "source").exists()


def test_a_plain_directory_is_its_content(sources: Sources, tmp_path: Path, home: Home) -> None:
    plain = tmp_path / "My Tree"
    (plain / "src" / "build-x").mkdir(parents=True)
    (plain / "CMakeLists.txt").write_text("project(x)")
    (plain / "src" / "a.c").write_text("int a;")
    (plain / "src" / "link.c").symlink_to("a.c")
    first = local(sources, plain)
    (plain / "src" / "build-x" / "CMakeCache.txt").touch()
    (plain / "src" / "build-x" / "a.o").touch()
    second = local(sources, plain)

    sources.check_out(second, home.staging_dir / "source")

    assert first.commit == second.commit
    assert second.commit.startswith("tree:")
    assert (second.version, second.build_number) == ("local-my-tree", 0)
    assert (home.staging_dir / "source" / "src" / "link.c").readlink() == Path("a.c")
    assert not (home.staging_dir / "source" / "src" / "build-x").exists()


def test_a_tree_inside_another_repository_is_not_that_repositorys_commit(sources: Sources, scratch: Scratch) -> None:
    vendored = scratch.directory / "vendor" / "llama.cpp"
    vendored.mkdir(parents=True)
    (vendored / "CMakeLists.txt").write_text("project(x)")
    scratch.commit("b11434")

    source = local(sources, vendored)

    assert source.commit.startswith("tree:")
    assert source.build_number == 0


def test_a_shallow_clone_does_not_pretend_to_know_its_number(
    sources: Sources, tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    run_git("clone", "--quiet", "--depth=1", "--branch=feature-x", "--", tiny_repository.url, str(tmp_path / "shallow"))

    assert local(sources, tmp_path / "shallow").build_number == 0


def test_a_tree_that_changes_before_it_is_copied_is_not_built(sources: Sources, scratch: Scratch, home: Home) -> None:
    scratch.commit()
    source = local(sources, scratch.directory)
    (scratch.directory / "CMakeLists.txt").write_text("project(changed)")

    with pytest.raises(IntegrityError, match="changed"):
        sources.check_out(source, home.staging_dir / "source")


def test_what_is_no_source_tree_is_refused(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        local(sources, tmp_path / "none")
    with pytest.raises(IncompleteSourceError, match=r"no CMakeLists\.txt"):
        local(sources, tmp_path)
