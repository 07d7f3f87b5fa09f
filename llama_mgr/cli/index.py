"""`llama-mgr index …`: which directories are searched for models, and whether what is in them is whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.index_upkeep import prune, rebuild, verify
from llama_mgr.errors import BadInputError, ConflictError, NotFoundError, StorageError
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.models.library import Catalog
    from llama_mgr.models.roots import Root


@click.group()
def index() -> None:
    """Watch the models of other tools, and keep the library in order."""


index.add_command(rebuild)
index.add_command(verify)
index.add_command(prune)


@index.command(
    epilog=examples(
        "llama-mgr index add ~/.lmstudio/models",
        "llama-mgr index add /mnt/models           # any directory with GGUF files",
        "llama-mgr index add --found               # wherever other tools usually keep theirs",
    )
)
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--found", is_flag=True, help="Watch all usual places of LM Studio, Hugging Face, llama.cpp and Ollama.")
@common_options
@pass_context
def add(context: Context, directory: Path | None, found: bool) -> None:
    """Watch a directory, and list the models in it.

    Nothing there is copied or changed. LM Studio's directory, the caches of Hugging Face and llama.cpp, and Ollama's
    models are recognised by their form.
    """
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.models.foreign import form_of, model_directory, usual_places
    from llama_mgr.models.roots import Roots

    if (directory is None) != found:
        raise BadInputError("name a DIRECTORY, or say --found")
    roots = Roots(context.models_home, context.reporter)
    if directory is not None:
        place = model_directory(absolute_path(directory))
        rows = [_row(*roots.add(place, form_of(place)))]
    else:
        rows = []
        for place in usual_places(context.environ, Path(context.environ.get("HOME", "/"))):
            try:
                rows.append(_row(*roots.add(place, form_of(place))))
            except ConflictError as error:
                context.reporter.note(error.message)
            except (BadInputError, NotFoundError, StorageError) as error:
                context.reporter.warn(error.message)
    context.answer({"roots": _with_models(context, rows)}, lambda output: _print_added(output, rows))


@index.command(
    epilog=examples(
        "llama-mgr index remove ~/.lmstudio/models", "llama-mgr index remove /mnt/gone   # also when it is gone"
    )
)
@click.argument("directory", type=click.Path(path_type=Path))
@common_options
@pass_context
def remove(context: Context, directory: Path) -> None:
    """Watch a directory no longer; nothing in it changes."""
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.models.foreign import model_directory
    from llama_mgr.models.roots import Roots

    place = model_directory(absolute_path(directory))
    root = Roots(context.models_home, context.reporter).remove(place)
    context.answer({"removed": str(root.path)}, lambda output: output.line(f"{root.path} is not watched any more"))


@index.command("list", epilog=examples("llama-mgr index list", "llama-mgr index list --json"))
@common_options
@pass_context
def list_roots(context: Context) -> None:
    """Show the directories that are searched, and what is in each."""
    from llama_mgr.models.library import Library
    from llama_mgr.models.roots import FORM_WORDS, Roots

    roots = Roots(context.models_home, context.reporter)
    rows = [_row(root, is_new=False) for root in [roots.own, *roots.watched()]]
    _counted(rows, Library(context.models_home, context.reporter).catalog())
    table = [
        (row["path"], FORM_WORDS[row["form"]], str(row["models"]), size_words(row["size_bytes"]), row["state"])
        for row in rows
    ]
    context.answer({"roots": rows}, lambda output: output.table(("directory", "kind", "models", "size", ""), table))


def _row(root: "Root", is_new: bool) -> dict[str, Any]:
    return {"path": str(root.path), "form": root.form, "added_at": root.added_at or None, "is_new": is_new}


def _with_models(context: Context, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from llama_mgr.models.library import Library

    _counted(rows, Library(context.models_home, context.reporter).catalog())
    return rows


def _counted(rows: list[dict[str, Any]], catalog: "Catalog") -> None:
    """Add to each row how much lies there; models that lie in several places count in each."""
    missing = {str(root.path) for root in catalog.missing_roots}
    for row in rows:
        there = [one for one in (*catalog.models, *catalog.duplicates) if str(one.root.path) == row["path"]]
        row["models"] = len(there)
        row["size_bytes"] = sum(one.size_bytes + one.projector_bytes for one in there)
        row["broken"] = sum(str(one.root.path) == row["path"] for one in catalog.broken)
        row["state"] = "not there" if row["path"] in missing else f"{row['broken']} broken" if row["broken"] else ""


def _print_added(output: Output, rows: list[dict[str, Any]]) -> None:
    from llama_mgr.models.roots import FORM_WORDS

    for row in rows:
        what = f"{row['models']} model{'' if row['models'] == 1 else 's'}, {size_words(row['size_bytes'])}"
        state = "is watched now" if row["is_new"] else "is watched already"
        output.line(f"{row['path']} ({FORM_WORDS[row['form']]}) {state}: {what}")
    if not rows:
        output.line("no directory of another tool was found in the usual places")
