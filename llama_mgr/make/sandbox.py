"""Where the converter runs: without network (where the system can), tokens, proxies and the user's home.

What is taken away are names, not files: a program that knows an absolute path can still read it. On Linux, the user
namespace that the network is taken away with also keeps the environment of llama-mgr, tokens among it, from being read
in /proc (ptrace(2), "Ptrace access mode checking").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llama_mgr.errors import LlamaMgrError
from llama_mgr.process import child_environ, found_program, run
from llama_mgr.store import storage_errors

_PROBE_TIMEOUT_S = 10.0
_KEPT = frozenset({"PATH", "LANG", "LC_ALL", "TERM", "TZ", "USER", "LOGNAME"})
_DIRECTORIES = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "XDG_CACHE_HOME": "home/.cache",
    "XDG_CONFIG_HOME": "home/.config",
    "XDG_DATA_HOME": "home/.local/share",
    "XDG_STATE_HOME": "home/.local/state",
    "XDG_RUNTIME_DIR": "run",
    "HF_HOME": "huggingface",
    "HF_MODULES_CACHE": "huggingface/modules",
    "TORCH_HOME": "torch",
}
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
}
_PYTHON = {
    "PYTHONNOUSERSITE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

# With a user namespace first: from inside, not even root reads the environment of a process outside.
_WITHOUT_NETWORK = (("--map-root-user", "--net"), ("--net",))


@dataclass(frozen=True)
class Sandbox:
    """How a command is run apart."""

    argv_prefix: tuple[str, ...]
    """What stands before it; it replaces itself by the command, so that a signal reaches that one."""
    environ: dict[str, str]
    """All of its environment."""
    has_network: bool
    """The system cannot take the network away. Libraries are told to stay offline all the same."""


def sandbox(scratch: Path, environ: Mapping[str, str]) -> Sandbox:
    """Return how to run a command apart, with its home, caches and temporary files below `scratch`.

    It is killed when the thread that started it dies, gains no privileges and leaves no core dump (Linux).

    On disk afterwards: `scratch` with these directories, which only the user may enter.

    Args:
        scratch: a directory that need not exist, and that the caller removes.
        environ: of the user; its PATH finds the programs that this takes.

    Raises:
        StorageError: the directories cannot be made.
    """
    prefix, has_network = _working_prefix(environ)
    kept = {name: value for name, value in child_environ(environ).items() if name in _KEPT}
    return Sandbox(prefix, {**kept, **_made(scratch), **_OFFLINE, **_PYTHON}, has_network)


def _made(scratch: Path) -> dict[str, str]:
    found = {}
    with storage_errors("cannot make", scratch):
        for name, below in _DIRECTORIES.items():
            place = scratch.absolute()
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in below.split("/"):  # `parents` would give those in between the usual mode
                place /= part
                place.mkdir(mode=0o700, exist_ok=True)
            found[name] = str(place)
    return found


def _working_prefix(environ: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    """Return the words that take most away of those that work here, and whether the network remains."""
    true = found_program("true", environ)
    for prefix, has_network in _prefixes(environ):
        if true is not None and _works((*prefix, str(true))):
            return prefix, has_network
    return (), True


def _prefixes(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield what could stand before a command, and whether it keeps the network then; the best first."""
    ways = [words for words in (_words(environ, "unshare", *flags) for flags in _WITHOUT_NETWORK) if words]
    # Behind unshare: a change of credentials clears the signal (PR_SET_PDEATHSIG of prctl(2)).
    dying = _words(environ, "setpriv", "--pdeathsig", "KILL")
    bare = _words(environ, "prlimit", "--core=0") + _words(environ, "setpriv", "--pdeathsig", "KILL", "--no-new-privs")
    for first in (*ways, ()):
        for rest in (bare, dying, ()):
            yield (*first, *rest), not first


def _words(environ: Mapping[str, str], program: str, *words: str) -> tuple[str, ...]:
    found = found_program(program, environ)
    return (str(found), *words, "--") if found else ()


@cache
def _works(argv: tuple[str, ...]) -> bool:
    """Tell whether a command succeeds; a kernel does not change its mind while we run."""
    try:
        return run(argv, environ={}, timeout_s=_PROBE_TIMEOUT_S, check=False).status == 0
    except LlamaMgrError:  # it cannot be run, or hangs
        return False
