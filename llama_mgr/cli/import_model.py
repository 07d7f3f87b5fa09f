"""`llama-mgr import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import BadInputError
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.models.importing import Imported, Way
    from llama_mgr.models.model import Model

_WAYS: "dict[str, Way]" = {"link": "link", "copy": "copy", "move": "move"}
_HOW_WORDS = {"reflink": "shares its blocks with the source", "hard link": "is the same file as the source"}


@click.command(
    "import",
    epilog=examples(
        "llama-mgr import ~/Downloads/model-Q4_K_M.gguf      # no second copy where the disk allows it",
        "llama-mgr import ./gguf-files --move                # all models in a directory",
        "llama-mgr import ./model.gguf --name me/my-model    # else its name is local/model",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--link", is_flag=True, help="Share the file, or fail.")
@click.option("--copy", is_flag=True, help="Copy it.")
@click.option("--move", is_flag=True, help="Take it away from where it is.")
@click.option("--name", metavar="OWNER/REPO", help="What to call the model; default local/ and the name of the file.")
@common_options
@pass_context
def import_model(context: Context, /, path: Path, name: str | None, **ways: bool) -> None:
    """Take GGUF files of this machine into the library.

    PATH is a file, which is taken with its other shards and its projector, or a directory with models. Without an
    option the file is shared: as a reflink, or as a hard link, which is the same file under a second name; where
    neither is possible, it is copied.
    """
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.models.importing import Importer
    from llama_mgr.models.library import Library

    chosen = [way for option, way in _WAYS.items() if ways[option]]
    if len(chosen) > 1:
        raise BadInputError(f"cannot use --{chosen[0]} and --{chosen[1]} together")
    importer = Importer(context.models_home, context.reporter)
    imported = importer.take(absolute_path(path), chosen[0] if chosen else "share", name)
    catalog = Library(context.models_home, context.reporter).catalog()
    rows = [_document(one, catalog.holding(one.files[0])) for one in imported]
    context.answer({"imported": rows}, lambda output: _print(output, rows))


def _document(one: "Imported", model: "Model | None") -> dict[str, Any]:
    return {
        # Where another model has the name, too, the library knows it by a longer one.
        "key": model.key if model is not None else one.key,
        "name": one.name,
        "quant": one.quant,
        "files": [str(file) for file in one.files],
        "projector": str(one.projector) if one.projector else None,
        "size_bytes": one.size_bytes,
        "how": one.how or None,
        "was_there": one.was_there,
    }


def _print(output: Output, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["was_there"]:
            output.line(f"{row['key']} is in the library already")
            continue
        how = _HOW_WORDS.get(row["how"], f"was {'moved' if row['how'] == 'move' else 'copied'}")
        output.line(f"{row['key']} is in the library ({size_words(row['size_bytes'])}); it {how}")
