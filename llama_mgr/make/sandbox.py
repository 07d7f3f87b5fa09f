"""Where the converter runs: without network (where the system can), tokens, proxies and the user's home."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import LlamaMgrError
from llama_mgr.process import child_environ, found_program, run
from llama_mgr.store import storage_errors

_PROBE_TIMEOUT_S = 10.0
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONNOUSERSITE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
_DIRECTORIES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", "TORCH_HOME")


@dataclass(frozen=True)
class Sandbox:
    """How a command is run apart: what stands before it, and its whole environment."""

    argv_prefix: tuple[str, ...]
    environ: dict[str, str]
    has_network: bool
    """The system cannot take the network away; libraries are told to stay offline all the same."""


def sandbox(scratch: Path, environ: Mapping[str, str]) -> Sandbox:
    """Return how to run a command apart, with its home, caches and temporary files below `scratch`.

    On disk afterwards: `scratch` with these directories, private to the user.

    Raises:
        StorageError: they cannot be made.
    """
    kept = child_environ(environ)
    for name in (*_PROXIES, *(name.upper() for name in _PROXIES), "SSH_AUTH_SOCK"):
        kept.pop(name, None)
    with storage_errors("cannot make", scratch):
        for name in _DIRECTORIES:
            directory = scratch / name.lower()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            kept[name] = str(directory)
    kept["HF_MODULES_CACHE"] = str(scratch / "hf_home" / "modules")
    unshare = _without_network(environ)
    setpriv = found_program("setpriv", environ)
    # After unshare, because a change of credentials would clear the signal (prctl(2), PDEATHSIG).
    dying = (str(setpriv), "--pdeathsig", "KILL", "--") if setpriv else ()
    return Sandbox((*unshare, *dying), {**kept, **_SETTINGS}, has_network=not unshare)


def _without_network(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words that take the network away, if they work here."""
    unshare, true = found_program("unshare", environ), found_program("true", environ)
    if unshare is None or true is None:
        return ()
    words = (str(unshare), "--map-root-user", "--net", "--")
    try:
        done = run([*words, true], environ=child_environ(environ), timeout_s=_PROBE_TIMEOUT_S, check=False)
    except LlamaMgrError:
        return ()
    return words if done.status == 0 else ()
