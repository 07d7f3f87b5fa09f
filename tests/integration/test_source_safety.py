"""What repositories, wishes, configurations and environments must not be able to do."""

from pathlib import Path

import pytest

from llama_mgr.build.repository import UPSTREAM_URL
from llama_mgr.build.source import Sources, Wanted
from llama_mgr.errors import (
    BadInputError,
    BadUrlError,
    BadVersionError,
    LlamaMgrError,
    RefusedError,
)
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import Settings
from tests.tools.listener import Listener
from tests.tools.scratch_repository import Scratch, git_config
from tests.tools.tiny_repository import TinyRepository


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
    git_config(
        environ, f'[url "ext::touch {canary} #"]', f"  insteadOf = {UPSTREAM_URL}", "[protocol]", "  allow = always"
    )

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
    home: Home,
    environ: dict[str, str],
    tiny_repository: TinyRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
