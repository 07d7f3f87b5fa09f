"""`llama-mgr convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.making import (
    environment_of,
    force_option,
    instance_option,
    made_document,
    output_option,
    place_of,
    print_made,
    workshop_of,
)
from llama_mgr.errors import BadInputError
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.make.checkpoint_dir import CheckpointDir
    from llama_mgr.make.checkpoint_source import CheckpointSource
    from llama_mgr.make.convert import Converter
    from llama_mgr.make.workshop import Workshop


@click.command(
    epilog=examples(
        "llama-mgr convert ./my-finetune                          # into the library, as F16 or BF16",
        "llama-mgr convert owner/repo --outtype q8_0              # pulls the checkpoint first",
        "llama-mgr convert --input ./dir --output model.gguf -i b11434-cpu",
        "llama-mgr convert ./my-lora --base ./base-model          # a LoRA adapter",
    )
)
@click.argument("words", nargs=-1, metavar="[INPUT [OUTPUT]]")
@click.option("--input", "given", metavar="DIR|OWNER/REPO", help="The checkpoint, or the adapter.")
@output_option
@click.option("--outtype", default="auto", metavar="TYPE", help="f16, bf16, f32, q8_0, ...; auto keeps 16-bit types.")
@instance_option
@click.option("--mmproj", is_flag=True, help="Convert the projector of a model that sees or hears.")
@click.option("--split-max-size", default="", metavar="N[M|G]", help="Make shards of at most this size.")
@click.option("--base", metavar="DIR|OWNER/REPO", help="The checkpoint that an adapter belongs to.")
@click.option("--metadata", type=click.Path(path_type=Path), metavar="FILE", help="JSON with authors, licence, tags.")
@click.option("--model-name", default="", metavar="TEXT", help="The name in the header.")
@click.option("--name", metavar="OWNER/REPO", help="What to call the model in the library.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint, and read pickles.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@force_option
@common_options
@pass_context
def convert(context: Context, /, **options: Any) -> None:  # noqa: ANN401
    """Convert a checkpoint of Hugging Face to GGUF.

    INPUT is a directory, or a repository on the hub. The converter of the chosen instance does it, in a Python
    environment of its own, without network (where the system can), tokens and your home directory. Checkpoints that
    bring code, or weights as pickles, are refused.
    """
    given, output = _read(options)
    with workshop_of(context, options["instance"]) as workshop:
        source, checkpoint = _checkpoint(context, given, options)
        converter = _converter(context, workshop, checkpoint, options)
        name = _name(options["name"], source)
        place = place_of(context, name, output)
        if options["dry_run"]:
            converter.require_possible(checkpoint)
            document = _plan(converter, checkpoint, place.directory, place.stem)
            context.answer(document, lambda out: _print_plan(out, document))
            return
        made = converter.convert(checkpoint, place, source.record, source.known)
        context.answer(made_document(made), lambda out: print_made(out, [made]))


def _read(options: dict[str, Any]) -> tuple[str, Path | None]:
    words = list(options["words"])
    given, output = options["given"], options["output"]
    if given is None and words:
        given = words.pop(0)
    if given is None:
        raise BadInputError("nothing to convert", hint="llama-mgr convert DIR, or OWNER/REPO")
    if output is None and words:
        output = Path(words.pop(0))
    if words:
        raise BadInputError("cannot use one word more", words[0], "INPUT and OUTPUT are named already")
    return given, output


def _checkpoint(context: Context, given: str, options: dict[str, Any]) -> "tuple[CheckpointSource, CheckpointDir]":
    from llama_mgr.cli.checkpoint_choice import chosen_checkpoint
    from llama_mgr.make.checkpoint_dir import inspect_checkpoint

    trusts = options["trust_remote_code"]
    source = chosen_checkpoint(context, given, with_code=trusts)
    return source, inspect_checkpoint(source.directory, trust_remote_code=trusts)


def _converter(
    context: Context, workshop: "Workshop", checkpoint: "CheckpointDir", options: dict[str, Any]
) -> "Converter":
    import msgspec

    from llama_mgr.cli.checkpoint_choice import adapter_base
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.make.convert import Converter, ConvertOptions
    from llama_mgr.make.output import Replacing

    names = ConvertOptions.__struct_fields__
    return Converter(
        workshop,
        environment_of(context, workshop),
        msgspec.convert({name: options[name] for name in names}, ConvertOptions),
        absolute_path(options["metadata"]) if options["metadata"] else None,
        adapter_base(context, checkpoint, options["base"], trusts=options["trust_remote_code"]),
        Replacing(force=options["force"]),
    )


def _name(chosen: str | None, source: "CheckpointSource") -> str:
    from llama_mgr.models.import_source import checked_model_name

    return checked_model_name(chosen) if chosen else source.model


def _plan(converter: "Converter", checkpoint: "CheckpointDir", directory: Path, stem: str) -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint.path),
        "architectures": list(checkpoint.architectures),
        "parameters": checkpoint.parameters,
        "weights_bytes": checkpoint.weights_bytes,
        "build": converter.workshop.build.build_id,
        "directory": str(directory),
        "about_bytes": converter.predicted_bytes(checkpoint),
        "arguments": converter.argv(checkpoint, stem, "out/model.gguf"),
    }


def _print_plan(output: Output, document: dict[str, Any]) -> None:
    from llama_mgr.cli.list_page import count_words

    names = printable(", ".join(document["architectures"]) or "?")
    output.line(f"{document['checkpoint']}: {names}, {count_words(document['parameters'])} parameters")
    output.line(f"to {document['directory']}, about {size_words(document['about_bytes'])}")
    output.line(f"with the converter of {document['build']}: {' '.join(document['arguments'])}")
