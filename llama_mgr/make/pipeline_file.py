"""Pipelines as files: what `make` does, declared in TOML, shipped in `recipes/pipelines` or the user's own."""

from pathlib import Path
from typing import Annotated

import msgspec

from llama_mgr.errors import BadConfigError, NotFoundError
from llama_mgr.names import is_name
from llama_mgr.paths import Home, shipped_dir
from llama_mgr.text import did_you_mean, printable
from llama_mgr.toml_file import read_toml

_DIRECTORY = "pipelines"
NO_IMATRIX, AUTO_IMATRIX = "none", "auto"


class Pipeline(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True):
    """What `make` does with a checkpoint; flags of the command line override it."""

    schema: int = 1
    description: str = ""
    source: str = ""
    """`owner/repo`, or a directory relative to the file; empty leaves it to the command line."""
    name: str = ""
    """What the model is called; empty is `owner/repo`, or `local/` and the name of the directory."""
    instance: str = ""
    outtype: str = "auto"
    quants: list[str] = []
    imatrix: str = NO_IMATRIX
    """`auto` computes one over `text`, `none` uses none, anything else is a file."""
    text: str = ""
    """A file or folder for the importance matrix; empty is the text that comes with llama-mgr."""
    evaluate: bool = False
    evaluation_text: str = ""
    context_tokens: Annotated[int, msgspec.Meta(ge=8, le=131_072)] = 512
    """Of one chunk, for the matrix and for measuring."""
    chunks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """At most so many of each text; 0 is all."""
    upload: str = ""
    """The hub repository that the result is pushed to."""


def pipeline_names(home: Home) -> dict[str, Path]:
    """Return the pipelines by name: those that ship with llama-mgr, and those in `recipes/pipelines` of the home."""
    found: dict[str, Path] = {}
    for directory in (shipped_dir("recipes") / _DIRECTORY, home.recipes_dir / _DIRECTORY):
        found |= {file.stem: file for file in sorted(directory.glob("*.toml"))}
    return found


def read_pipeline(home: Home, chosen: str) -> Pipeline:
    """Return the pipeline that `chosen` names, or that is in the file `chosen`; paths in it are absolute.

    Raises:
        NotFoundError: there is none.
        BadConfigError: the file does not parse or validate.
    """
    known = pipeline_names(home)
    file = known.get(chosen) if is_name(chosen) else None
    path = file or Path(chosen)
    if file is None and not path.is_file():
        hint = did_you_mean(chosen, known) or f"there are {', '.join(sorted(known))}; or name a .toml file"
        raise NotFoundError("cannot find the pipeline", printable(chosen), hint=hint)
    pipeline = read_toml(path, Pipeline)
    if not pipeline.quants:
        raise BadConfigError("cannot read", path, "quants: at least one type is needed", hint='quants = ["Q4_K_M"]')
    if "\0" in "".join(str(value) for value in msgspec.structs.astuple(pipeline)):
        raise BadConfigError("cannot read", path, "a value has a zero byte in it")
    return _with_absolute_paths(pipeline, path.absolute().parent)


def _with_absolute_paths(pipeline: Pipeline, base: Path) -> Pipeline:
    paths = {"text": pipeline.text, "evaluation_text": pipeline.evaluation_text}
    if pipeline.imatrix not in {NO_IMATRIX, AUTO_IMATRIX}:
        paths["imatrix"] = pipeline.imatrix
    if pipeline.source.startswith((".", "/", "~")):
        paths["source"] = pipeline.source
    absolute = {name: str(base / Path(value).expanduser()) for name, value in paths.items() if value}
    return msgspec.structs.replace(pipeline, **absolute)
