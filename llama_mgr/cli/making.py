"""What the commands that make models have in common: the instance at work, the model that is given, the answer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llama_mgr.cli.completing import complete_instances
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context
from llama_mgr.text import duration_words, size_words

if TYPE_CHECKING:
    from llama_mgr.make.output import Made, Place
    from llama_mgr.make.python_env import Environment
    from llama_mgr.make.workshop import Workshop

Command = TypeVar("Command", bound=Callable[..., Any])

instance_option = click.option(
    "--instance", "-i", metavar="NAME", help="The instance to work with.", shell_complete=complete_instances
)
output_option = click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE|DIR", help="Where to put it; default the library."
)
force_option = click.option("--force", is_flag=True, help="Replace files, and go on where the disk seems too small.")
threads_option = click.option("--threads", "-t", type=click.IntRange(1, 1024), metavar="N", help="Threads to use.")
gpu_option = click.option(
    "--n-gpu-layers", "-ngl", "gpu_layers", type=click.IntRange(0, 9999), metavar="N",
    help="Layers on the GPU; default all where the build has one.",
)  # fmt: skip


@contextmanager
def workshop_of(context: Context, instance: str | None) -> "Iterator[Workshop]":
    """Lend the instance that the user means, for making models."""
    from llama_mgr.instances.choice import choose
    from llama_mgr.make.workshop import opened_workshop

    chosen = choose(context.home, instance, context.environ, Path.cwd()).instance
    with opened_workshop(context.models_home, chosen, context.environ, context.reporter) as workshop:
        yield workshop


def environment_of(context: Context, workshop: "Workshop") -> "Callable[[], Environment]":
    """Return what gives the Python environment of the converter, made when it is first asked for."""
    from llama_mgr.cli.converter import ensure_environment

    return lambda: ensure_environment(context, workshop.build)


@dataclass(frozen=True)
class ChosenGguf:
    """A GGUF that something is made of."""

    name: str
    """`owner/repo`."""
    key: str
    quant: str
    files: tuple[Path, ...]
    directory: Path | None
    """Where it lies, if that is our own library."""


def chosen_gguf(context: Context, text: str) -> ChosenGguf:
    """Return the GGUF that `text` means: a file of this disk, or a model of the library.

    Raises:
        UnknownModelError, AmbiguousModelError, BadReferenceError: it is no model, or several.
        NotFoundError, BadGgufError: there is no such file, or it is none.
    """
    from llama_mgr.cli.model_choice import absolute_path, chosen_model, path_in
    from llama_mgr.models.headers import Headers
    from llama_mgr.models.import_source import any_gguf_at, default_name
    from llama_mgr.models.library import Library
    from llama_mgr.models.roots import real_path

    path = path_in(text)
    if path is None and text.lower().endswith(".gguf") and "/" not in text.replace("./", ""):
        path = absolute_path(Path(text))
    catalog = Library(context.models_home, context.reporter).catalog()
    held = catalog.holding(path) if path is not None else None
    if path is not None and (held is None or real_path(path) in map(real_path, held.projectors)):
        group = any_gguf_at(path, Headers(context.models_home, context.reporter))
        name = default_name(group)
        return ChosenGguf(name, text, group.model.quant, group.model.files, None)
    model = chosen_model(context, str(path) if path is not None else text, catalog)
    place = model.files[0].parent if model.root.is_own else None
    return ChosenGguf(model.name, model.key, model.quant, model.files, place)


def place_of(context: Context, name: str, output: Path | None, own: Path | None = None) -> "Place":
    """Return where results of the model `name` go: where the user says, beside it in our library, or into that."""
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.make.output import Place, place_for

    if output is None and own is not None:
        return Place(own, is_library=True, model=name)
    return place_for(context.models_home, name, absolute_path(output) if output is not None else None)


def made_document(made: "Made") -> dict[str, Any]:
    """Return what was made as `--json` prints it."""
    import msgspec

    return {
        "files": [str(file) for file in made.files],
        "sha256s": list(made.sha256s),
        "size_bytes": made.size_bytes,
        "was_there": made.was_there,
        "provenance": msgspec.to_builtins(made.provenance),
    }


def print_made(output: Output, made: "Sequence[Made]") -> None:
    """Print one line for each result."""
    for one in made:
        shards = f" and {len(one.files) - 1} more" if len(one.files) > 1 else ""
        if one.was_there:
            output.line(f"{one.file}{shards} is there already, made in this way from the same input")
            continue
        words = f"{size_words(one.size_bytes)}, {duration_words(one.provenance.took_s)}"
        output.line(f"{one.file}{shards} ({words}) by {one.provenance.build.build_id}")
