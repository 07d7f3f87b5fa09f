"""`llama-mgr pull`."""

import functools
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import BadInputError, LlamaMgrError, StorageError
from llama_mgr.paths import HOME_VARIABLE
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.models.checkpoint import PulledCheckpoint
    from llama_mgr.models.model import Model
    from llama_mgr.models.pull import Pulled
    from llama_mgr.models.reference import HubRef, UrlRef

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ONLY_MODELS = ("sha256", "no_mmproj")
_ONLY_CHECKPOINTS = ("include", "exclude")


@click.command(
    epilog=examples(
        "llama-mgr pull bartowski/SmolLM2-135M-Instruct-GGUF         # the quant that suits this machine",
        "llama-mgr pull bartowski/Qwen2.5-7B-Instruct-GGUF:Q5_K_M    # this quant",
        "llama-mgr pull --checkpoint HuggingFaceTB/SmolLM2-135M      # safetensors, to convert",
    )
)
@click.argument("reference")
@click.option("--revision", metavar="REV", help="A branch, tag or commit of the repository.")
@click.option("--dir", "directory", metavar="DIR", help="Put the files there.")
@click.option("--sha256", metavar="HEX", help="What the one file must have; needed for a URL.")
@click.option("--no-mmproj", is_flag=True, help="Leave out the projector of a model that can see or hear.")
@click.option("--checkpoint", is_flag=True, help="Fetch the original weights, for `convert`, not a GGUF.")
@click.option("--include", multiple=True, metavar="GLOB", help="With --checkpoint: these files only (repeatable).")
@click.option("--exclude", multiple=True, metavar="GLOB", help="With --checkpoint: not these files (repeatable).")
@click.option("--force", is_flag=True, help="Do not ask whether the disk has room.")
@common_options
@pass_context
def pull(context: Context, /, **options: Any) -> None:  # noqa: ANN401 (click hands options by name)
    """Fetch a model, check it, and put it into the library.

    REFERENCE is `owner/repo`, `owner/repo:QUANT`, `owner/repo/file.gguf`, an alias, or an https URL with --sha256. All
    shards come, and the projector. Without a QUANT, the preferred one that fits into free memory is taken. What was
    interrupted goes on; what is there is not fetched again.
    """
    from llama_mgr.models.aliases import Aliases
    from llama_mgr.models.reference import HubRef, parse_hub_reference

    _require_together(options)
    ref = parse_hub_reference(options["reference"], Aliases(context.home))
    if options["sha256"] is not None:
        options["sha256"] = _checked_sha256(options["sha256"])
    if options["directory"] is not None:
        options["directory"] = _checked_directory(options["directory"])
    with _fitting_hint(options["directory"]):
        if not isinstance(ref, HubRef):
            _pull_url(context, ref, options)
        elif options["checkpoint"]:
            _pull_checkpoint(context, _at_revision(ref, options["revision"]), options)
        else:
            _pull_model(context, _at_revision(ref, options["revision"]), options)


# -- three kinds -------------------------------------------------------------------------------------------------------


def _pull_model(context: Context, ref: "HubRef", options: Mapping[str, Any]) -> None:
    from llama_mgr.cli.machine import machine_of
    from llama_mgr.models.pull import Puller

    machine = machine_of(context, fresh=not (ref.quant or ref.file))
    known = functools.partial(_known, context)
    pulled = Puller(context.models_home, context.hub, context.reporter, machine=machine, known=known).pull(
        ref,
        with_projector=not options["no_mmproj"],
        sha256=options["sha256"],
        directory=options["directory"],
        force=options["force"],
    )
    _answer(context, pulled, options["directory"])


def _known(context: Context, sha256: str, size_bytes: int) -> Path | None:
    """Return a model file of the library that has this content, or may have it: who takes it hashes it.

    Where nobody knows the sha256 of a file (LM Studio keeps none), its size decides: hashing is faster than fetching.
    """
    from llama_mgr.models.library import Library

    try:
        catalog = Library(context.models_home, context.reporter).catalog()
    except LlamaMgrError:  # a download does not need the library
        return None
    alike = [
        one
        for one in (*catalog.models, *catalog.duplicates)
        if len(one.files) == 1 and one.size_bytes == size_bytes and one.sha256 in {sha256, ""}
    ]
    return max(alike, key=lambda one: one.sha256).files[0] if alike else None


def _pull_url(context: Context, ref: "UrlRef", options: Mapping[str, Any]) -> None:
    from llama_mgr.download import HttpClient
    from llama_mgr.models.pull import Puller
    from llama_mgr.text import without_secrets

    if options["checkpoint"] or options["revision"] or options["no_mmproj"]:
        why = "a URL has no --checkpoint, --revision or --no-mmproj"
        raise BadInputError("cannot pull", without_secrets(ref.url), why)
    if options["sha256"] is None:
        raise BadInputError(
            "cannot pull", without_secrets(ref.url), "nobody vouches for what a URL gives",
            hint="add --sha256 HEX, as the source states it; models on the hub need none",
        )  # fmt: skip
    puller = Puller(context.models_home, context.hub, context.reporter)
    client = HttpClient(context.environ, context.reporter, use_netrc=False)
    directory, force = options["directory"], options["force"]
    _answer(context, puller.pull_url(ref, options["sha256"], client, directory=directory, force=force), directory)


def _pull_checkpoint(context: Context, ref: "HubRef", options: Mapping[str, Any]) -> None:
    from llama_mgr.models.checkpoint import CheckpointPuller

    if ref.quant or ref.file:
        raise BadInputError("cannot pull the checkpoint", ref, "a checkpoint has no quants; name owner/repo alone")
    pulled = CheckpointPuller(context.models_home, context.hub, context.reporter).pull(
        ref,
        include=options["include"],
        exclude=options["exclude"],
        directory=options["directory"],
        force=options["force"],
    )
    document = _checkpoint_document(pulled)
    context.answer(document, lambda output: _print_checkpoint(output, document))


# -- options -----------------------------------------------------------------------------------------------------------


def _require_together(options: Mapping[str, Any]) -> None:
    """Raise for options that the others make meaningless."""
    foreign = _ONLY_MODELS if options["checkpoint"] else _ONLY_CHECKPOINTS
    named = [f"--{name.replace('_', '-')}" for name in foreign if options[name]]
    if named:
        why = "it goes with a GGUF, not with --checkpoint" if options["checkpoint"] else "it needs --checkpoint"
        raise BadInputError("cannot use", named[0], why)


def _checked_sha256(text: str) -> str:
    sha256 = text.strip().lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(sha256):
        raise BadInputError("cannot use --sha256", text, "64 hexadecimal digits are needed")
    return sha256


def _checked_directory(text: str) -> Path:
    if not text.strip():
        raise BadInputError("cannot use --dir", text, "it is empty; a directory is needed")
    place = Path(text).absolute()
    if place.exists() and not place.is_dir():
        raise BadInputError("cannot use --dir", text, "it is not a directory")
    return place


@contextmanager
def _fitting_hint(directory: Path | None) -> Iterator[None]:
    """Let an error that --dir caused not advise to move the home."""
    try:
        yield
    except StorageError as error:
        if directory is not None and HOME_VARIABLE in (error.hint or ""):
            error.hint = "name a directory that you can write to with --dir DIR"
        raise


def _at_revision(ref: "HubRef", revision: str | None) -> "HubRef":
    from llama_mgr.models.reference import is_revision

    if revision is None:
        return ref
    if not is_revision(revision):
        raise BadInputError("cannot use --revision", revision, "the name of a branch or tag, or a commit, is needed")
    if ref.revision not in {None, revision}:
        raise BadInputError("cannot use --revision", revision, f"the reference says @{printable(ref.revision)}")
    return replace(ref, revision=revision)


# -- answers -----------------------------------------------------------------------------------------------------------


def _answer(context: Context, pulled: "Pulled", directory: Path | None) -> None:
    paths = [str(path) for path in pulled.files]
    model = None if directory is not None else _in_library(context, pulled)
    document = {
        "name": pulled.name,
        "quant": pulled.quant if model is None else model.quant,
        "key": None if model is None else model.key,
        "paths": paths,
        "projector": None if pulled.projector is None else str(pulled.projector),
        "revision": pulled.revision,
        "size_bytes": pulled.size_bytes,
        "bytes_fetched": pulled.bytes_fetched,
        "was_there": pulled.was_there,
    }
    context.answer(document, lambda output: _print(output, document, directory))


def _in_library(context: Context, pulled: "Pulled") -> "Model | None":
    """Return the model that the library has of what was pulled: it reads headers, and file names may lie."""
    from llama_mgr.models.library import Library

    catalog = Library(context.models_home, context.reporter).catalog()
    found = catalog.holding(pulled.files[0])
    return next((one for one in catalog.models if found is not None and found.files[0] in one.copies), found)


def _print(output: Output, document: Mapping[str, Any], directory: Path | None) -> None:
    state = "is up to date" if document["was_there"] else f"is here: {size_words(document['size_bytes'])}"
    output.line(f"{document['key'] or document['name']} {state}")
    for path in (*document["paths"], *filter(None, [document["projector"]])):
        output.line(f"  {path}")
    if directory is not None:
        output.line(f"to have it in the library: llama-mgr index add {shlex.quote(str(directory))}")
    else:
        output.line(f"next: llama-mgr show {shlex.quote(document['key'] or document['paths'][0])}")


def _checkpoint_document(pulled: "PulledCheckpoint") -> dict[str, Any]:
    return {
        "name": pulled.name,
        "directory": str(pulled.directory),
        "revision": pulled.revision,
        "files": list(pulled.files),
        "bytes_fetched": pulled.bytes_fetched,
        "was_there": pulled.was_there,
    }


def _print_checkpoint(output: Output, document: Mapping[str, Any]) -> None:
    state = "is up to date" if document["was_there"] else "is here"
    output.line(f"the checkpoint {document['name']} {state}: {len(document['files'])} files")
    output.line(f"  {document['directory']}")
