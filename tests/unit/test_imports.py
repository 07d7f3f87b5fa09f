"""Commands that need nothing heavy load nothing heavy."""

import json
import subprocess
import sys

import pytest

HEAVY = frozenset(
    {"git", "huggingface_hub", "httpx2", "starlette", "uvicorn", "requests", "pypi_simple", "rich", "asyncio"}
)
_RUN_AND_TELL = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv = ["llama-mgr", *sys.argv[1:]]
from llama_mgr.cli.app import main
main()
"""


def modules_after(environ: dict[str, str], *words: str) -> set[str]:
    """The modules that a process has loaded when `llama-mgr WORDS…` has ended well."""
    ended = subprocess.run(
        [sys.executable, "-c", _RUN_AND_TELL, *words],
        env=environ, capture_output=True, encoding="utf-8", timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", [("--version",), ("version", "--json")], ids=" ".join)
def test_version_loads_nothing_heavy(environ: dict[str, str], words: tuple[str, ...]) -> None:
    loaded = modules_after(environ, *words)
    assert "click" in loaded, "the modules were not seen"
    assert loaded & HEAVY == set()


def test_looking_at_settings_loads_nothing_of_the_build(environ: dict[str, str]) -> None:
    for words in (("config", "show"), ("config", "get", "default-arch")):
        loaded = {name for name in modules_after(environ, *words) if name.startswith("llama_mgr.")}
        assert "llama_mgr.settings" in loaded, "the modules were not seen"
        assert not {name for name in loaded if name.startswith("llama_mgr.build")}
