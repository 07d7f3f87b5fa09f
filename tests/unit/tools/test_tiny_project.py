import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.tiny_repository import TINY_2024_DIR, TINY_DIR, make_fork_repository, make_tiny_repository, run_git

TOOLS = ("server", "cli", "quantize", "imatrix", "perplexity", "bench", "gguf-split", "completion")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "GIT_", "TINY_"))}


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False, timeout=60
    )


def configure(source: Path, build: Path, *defines: str) -> subprocess.CompletedProcess[str]:
    ninja = f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"
    return run(tool("cmake"), "-G", "Ninja", "-S", source, "-B", build, ninja, "-DGGML_CCACHE=OFF", *defines)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    build = tmp_path_factory.mktemp("tiny") / "build"
    numbers = ("-DLLAMA_BUILD_NUMBER=11434", "-DLLAMA_BUILD_COMMIT=abc1234")
    log = configure(TINY_DIR, build, "-DGGML_RPC=ON", "-DGGML_TYPO=ON", "-DLLAMA_USE_PREBUILT_UI=OFF", *numbers)
    assert log.returncode == 0, log.stderr
    made = run(tool("ninja"), "-C", build)
    assert made.returncode == 0, made.stdout
    return build, log.stdout + log.stderr


def test_configure_log_names_backends_and_is_silent_about_typos(tiny: tuple[Path, str]) -> None:
    _, log = tiny
    assert "-- Including CPU backend" in log
    assert "-- Including RPC backend" in log
    assert "GGML_TYPO" not in log
    assert "Including CUDA backend" not in log


def test_everything_lands_in_bin_under_upstreams_names(tiny: tuple[Path, str]) -> None:
    build, _ = tiny
    programs = {f"llama-{name}" for name in TOOLS} | {"llama", "ggml-rpc-server"}
    assert programs <= {entry.name for entry in (build / "bin").iterdir()}
    assert not (build / "tools/ui/download-tried.txt").exists()
    if sys.platform == "linux":
        assert (build / "bin/libllama.so").readlink() == Path("libllama.so.0")
        assert (build / "bin/libllama.so.0").readlink() == Path("libllama.so.0.6.0")
        for library in ("ggml", "ggml-base", "ggml-cpu", "ggml-rpc"):
            assert (build / f"bin/lib{library}.so").is_file()


@pytest.mark.parametrize("name", TOOLS)
def test_version_goes_to_stderr(tiny: tuple[Path, str], name: str) -> None:
    done = run(tiny[0] / f"bin/llama-{name}", "--version")
    assert (done.returncode, done.stdout) == (0, "")
    first, second = done.stderr.splitlines()
    assert first == "version: 0.6.0-dev (build 11434, commit abc1234)"
    assert second.startswith("built with ")


def test_server_help_has_upstreams_layout(tiny: tuple[Path, str]) -> None:
    done = run(tiny[0] / "bin/llama-server", "--help")
    assert done.returncode == 0
    heads = [line for line in done.stdout.splitlines() if line.startswith("-") and not line.startswith("-----")]
    flags = {flag for head in heads for flag in re.findall(r"(?<![\w-])(--?[A-Za-z][\w.-]*)", head[:40])}
    assert {"--host", "--port", "--ctx-size", "--load-mode", "-fa", "--flash-attn", "--fit", "--no-ui"} <= flags
    assert {"--list-devices", "--api-key-file", "--alias"} <= flags
    assert "--no-mmap" not in flags
    assert "-fa,   --flash-attn [on|off|auto]       set Flash" in done.stdout


def test_server_refuses_and_lists(tiny: tuple[Path, str]) -> None:
    server = tiny[0] / "bin/llama-server"
    refused = run(server, "--no-mmap")
    assert (refused.returncode, refused.stderr) == (1, "error: invalid argument: --no-mmap\n")
    assert run(server, "--list-devices").stdout == "Available devices:\n  (none)\n"


def test_quantize_help_and_quantize(tiny: tuple[Path, str], tmp_path: Path) -> None:
    quantize = tiny[0] / "bin/llama-quantize"
    shown = run(quantize, "--help")
    assert shown.returncode == 1
    assert " allowed quantization types\n" in shown.stdout
    assert re.search(r"^  15  or  Q4_K_M  :  4\.58G", shown.stdout, re.MULTILINE)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    source = tmp_path / "out.gguf"
    script = TINY_DIR / "convert_hf_to_gguf.py"
    assert run(sys.executable, "-B", script, "--outfile", source, "--outtype", "f16", checkpoint).returncode == 0
    assert run(quantize, source, tmp_path / "small.gguf", "q4_k_m", "2").returncode == 0
    before, after = source.read_bytes(), (tmp_path / "small.gguf").read_bytes()
    assert before[:4] == after[:4] == b"GGUF"
    assert [(old, new) for old, new in zip(before, after, strict=True) if old != new] == [(1, 15)]


@contextlib.contextmanager
def serving(build: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [str(build / "bin/llama-server"), "--port", "0", *arguments]
    with subprocess.Popen(command, env=CLEAN, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            yield server, int(server.stderr.readline().rsplit(":", 1)[1])
        finally:
            server.kill()


def ask(port: int, path: str, body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST" if body else "GET", path, body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_server_loads_then_answers_then_stops(tiny: tuple[Path, str], tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    with serving(tiny[0], "-m", str(model), "--host", "127.0.0.1", "--alias", "tiny") as (server, port):
        status, text = ask(port, "/health")
        loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
        assert (status, json.loads(text)) == (503, loading)
        deadline = time.monotonic() + 5
        while status == 503 and time.monotonic() < deadline:
            time.sleep(0.02)
            status, text = ask(port, "/health")
        assert (status, text) == (200, '{"status":"ok"}')
        status, text = ask(port, "/v1/chat/completions", '{"messages":[]}')
        said = json.loads(text)
        assert said["choices"][0]["message"]["content"] == "The capital of France is Paris."
        assert said["usage"]["total_tokens"] == 23
        assert said["timings"]["predicted_per_second"] > 0
        status, text = ask(port, "/v1/chat/completions", '{"messages":[],"stream":true}')
        chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
        said_in_pieces = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert said_in_pieces == "The capital of France is Paris."
        assert text.endswith("data: [DONE]\n\n")
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=5) == 0


def test_server_listens_on_a_unix_socket_and_fails_without_its_model(tiny: tuple[Path, str], tmp_path: Path) -> None:
    missing = run(tiny[0] / "bin/llama-server", "--port", "0", "-m", tmp_path / "absent.gguf")
    assert missing.returncode == 1
    assert "failed to load model" in missing.stderr
    socket_file = tmp_path / "s.sock"
    command = [str(tiny[0] / "bin/llama-server"), "--host", str(socket_file)]
    with subprocess.Popen(command, env=CLEAN, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        server.stderr.readline()
        assert socket_file.is_socket()
        server.terminate()
        assert server.wait(timeout=5) == 0


def test_missing_toolkit_is_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLEAN, "TINY_MISSING_TOOLKIT", "CUDA;VULKAN")
    done = configure(TINY_DIR, tmp_path / "build", "-DGGML_VULKAN=ON")
    assert done.returncode != 0
    assert "Could NOT find Vulkan (missing: Vulkan_LIBRARY Vulkan_INCLUDE_DIR glslc)" in done.stderr


def test_dynamic_backends_are_plugins(tmp_path: Path) -> None:
    build = tmp_path / "build"
    log = configure(TINY_DIR, build, "-DGGML_BACKEND_DL=ON", "-DGGML_NATIVE=OFF", "-DGGML_CPU_ALL_VARIANTS=ON")
    assert "-- Adding CPU backend variant ggml-cpu-haswell:" in log.stdout
    assert run(tool("ninja"), "-C", build, "llama-server").returncode == 0
    assert list((build / "bin").glob("libggml-cpu-haswell.*"))


def test_repository_counts_builds_and_is_always_the_same(tmp_path: Path) -> None:
    tool("git")
    repository = make_tiny_repository(tmp_path / "a.git", broken=True)
    assert repository.url == f"file://{tmp_path.resolve()}/a.git"
    for name, commit in repository.commits.items():
        if name.startswith("b"):
            assert run_git("rev-list", "--count", commit, cwd=repository.path) == name[1:]
    assert repository.commits["master"] == repository.commits["b11442"]
    plain = make_tiny_repository(tmp_path / "b.git")
    assert plain.commits["master"] == repository.commits["b11434"]
    assert set(plain.commits) == {"master", "feature-x", "pull/123", "b11401", "v0.6.0", "b11434"}
    assert run_git("cat-file", "-t", "v0.6.0", cwd=plain.path) == "tag"
    changed = run_git("diff", "--name-only", "b11401", "b11434", cwd=plain.path).splitlines()
    assert changed == ["tools/quantize/quantize.c", "tools/server/server.c"]


@pytest.mark.parametrize(("tag", "fails_at"), [("b11440", "build"), ("b11441", "configure"), ("b11442", "version")])
def test_broken_tags_fail_where_they_should(tmp_path: Path, tag: str, fails_at: str) -> None:
    tool("git")
    repository = make_tiny_repository(tmp_path / "tiny.git", broken=True)
    source, build = tmp_path / "source", tmp_path / "build"
    run_git("worktree", "add", "--detach", str(source), repository.commits[tag], cwd=repository.path)
    log = configure(source, build)
    assert (log.returncode != 0) == (fails_at == "configure")
    if fails_at == "configure":
        assert "Could NOT find Tiny" in log.stderr
        return
    made = run(tool("ninja"), "-C", build, "llama-server", "llama-quantize")
    assert (made.returncode != 0) == (fails_at == "build")
    if fails_at == "build":
        assert "error:" in made.stdout
        return
    assert run(build / "bin/llama-server", "--version").returncode == -signal.SIGABRT
    assert run(build / "bin/llama-server", "--help").returncode == 0


def test_fork_of_2024_has_the_old_layout(tmp_path: Path) -> None:
    tool("git")
    repository = make_fork_repository(tmp_path / "fork.git")
    source, build = tmp_path / "source", tmp_path / "build"
    run_git("worktree", "add", "--detach", str(source), repository.commits["b3600"], cwd=repository.path)
    log = configure(source, build, "-DGGML_HIP=ON", "-DGGML_CUDA=ON")
    assert log.returncode == 0
    assert "GGML_HIP" in log.stderr
    assert "CUDA not found" in log.stderr
    assert run(tool("ninja"), "-C", build).returncode == 0
    assert list((build / "src").glob("libllama.*"))
    assert list((build / "ggml/src").glob("libggml.*"))
    short = repository.commits["b3600"][:7]
    assert f"version: 3600 ({short}" in run(build / "bin/llama-server", "--version").stderr
    assert (source / "common/build-info.cpp").is_file()
    assert not (TINY_2024_DIR / "common/build-info.cpp").exists()
