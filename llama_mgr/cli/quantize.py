"""`llama-mgr quantize`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.making import (
    chosen_gguf,
    force_option,
    instance_option,
    made_document,
    output_option,
    place_of,
    print_made,
    threads_option,
    workshop_of,
)
from llama_mgr.errors import BadInputError
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.make.quantize_options import QuantizeOptions
    from llama_mgr.make.workshop import Workshop


@click.command(
    epilog=examples(
        "llama-mgr quantize                                  # list the types of this build",
        "llama-mgr quantize my-model:F16 Q4_K_M Q8_0         # into the library",
        "llama-mgr quantize in-F16.gguf out.gguf Q4_K_M      # as llama-quantize takes it",
        "llama-mgr quantize --input in.gguf --output ./quants --quant IQ2_M,IQ4_XS --imatrix in.imatrix.gguf",
    )
)
@click.argument("words", nargs=-1, metavar="[INPUT [OUTPUT] TYPE...]", shell_complete=complete_models)
@click.option("--input", "given", metavar="GGUF|MODEL", help="What to quantize.", shell_complete=complete_models)
@output_option
@click.option("--quant", "quants", multiple=True, metavar="TYPE[,TYPE...]", help="To what; repeat it for several.")
@instance_option
@click.option("--imatrix", type=click.Path(path_type=Path), metavar="FILE", help="Importance matrix to use.")
@click.option("--tensor-type", "tensor_types", multiple=True, metavar="NAME=TYPE", help="Type of tensors so named.")
@click.option("--output-tensor-type", metavar="TYPE", default="", help="Type of the output matrix.")
@click.option("--token-embedding-type", metavar="TYPE", default="", help="Type of the token embeddings.")
@click.option("--leave-output-tensor", is_flag=True, help="Leave the output matrix as it is.")
@click.option("--pure", is_flag=True, help="One type for all matrices, no mixture.")
@click.option("--prune-layers", metavar="N,N...", default="", help="Layers to leave out.")
@click.option("--override-kv", multiple=True, metavar="KEY=TYPE:VALUE", help="Set a key of the header.")
@click.option("--keep-split", is_flag=True, help="Shards in, shards out.")
@click.option("--allow-requantize", is_flag=True, help="Quantize what is quantized already; it loses quality twice.")
@threads_option
@click.option("--dry-run", is_flag=True, help="Only say how large the results would be.")
@force_option
@common_options
@pass_context
def quantize(context: Context, /, **options: Any) -> None:  # noqa: ANN401
    """Quantize a GGUF to one or more types.

    Several types are made at the same time, as memory and cores allow. Each file appears when it is whole, with a
    record of how it was made. What was made before from the same input in the same way is not made again.

    Without arguments, the types that the instance knows are listed.
    """
    with workshop_of(context, options["instance"]) as workshop:
        if not options["words"] and options["given"] is None:
            _list(context, workshop)
            return
        _quantize(context, workshop, options)


def _quantize(context: Context, workshop: "Workshop", options: dict[str, Any]) -> None:
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.make.gguf_input import gguf_input
    from llama_mgr.make.output import Replacing
    from llama_mgr.make.quant_types import checked_types
    from llama_mgr.make.quantize import Quantizer

    given, output, words = _read(options, workshop)
    types = checked_types(words, workshop.capabilities.quant_types)
    chosen = chosen_gguf(context, given)
    place = place_of(context, chosen.name, output, chosen.directory)
    if place.file_name and len(types) > 1:
        raise BadInputError(
            "cannot write to one file", output, f"{len(types)} types are wanted", hint="name a directory"
        )
    imatrix = absolute_path(options["imatrix"]) if options["imatrix"] else None
    if imatrix is not None:
        _require_imatrix(imatrix)
    quantizer = Quantizer(
        workshop, _options(options), imatrix, options["threads"] or 0, Replacing(force=options["force"])
    )
    model = gguf_input(chosen.files, context.reporter)
    if options["dry_run"]:
        quantizer.require_possible(model, types)
        rows = [{"type": one, "size_bytes": quantizer.predicted(model, one)} for one in types]
        context.answer({"dry_run": rows}, lambda out: _print_sizes(out, rows))
        return
    made = quantizer.quantize(model, types, place)
    context.answer({"made": [made_document(one) for one in made]}, lambda out: print_made(out, made))


def _read(options: dict[str, Any], workshop: "Workshop") -> tuple[str, Path | None, list[str]]:
    """Return input, output and types; words without a flag stand in the order of llama-quantize."""
    from llama_mgr.make.quant_types import is_type

    words, quants = list(options["words"]), list(options["quants"])
    given, output = options["given"], options["output"]
    if given is None:
        given = words.pop(0)
    known = workshop.capabilities.quant_types
    is_output = words and output is None and (bool(quants) or len(words) > 1) and not is_type(words[0], known)
    if is_output:
        output = Path(words.pop(0))
    return given, output, [*words, *quants]


def _require_imatrix(file: Path) -> None:
    from llama_mgr.make.imatrix import require_imatrix

    if file.suffix.lower() == ".gguf" or not file.exists():
        require_imatrix(file)  # the older form, .dat, is for llama-quantize to judge


def _options(options: dict[str, Any]) -> "QuantizeOptions":
    import msgspec

    from llama_mgr.make.quantize_options import QuantizeOptions

    names = QuantizeOptions.__struct_fields__
    return msgspec.convert({name: options[name] for name in names}, QuantizeOptions, strict=False)


def _list(context: Context, workshop: "Workshop") -> None:
    from llama_mgr.make.quant_types import quant_kinds

    workshop.program("quantize")
    kinds = quant_kinds(workshop.capabilities.quant_types)
    rows = [
        {
            "type": one.name,
            "bits_per_weight": one.bits_per_weight,
            "needs_imatrix": one.needs_imatrix,
            "remark": one.remark,
        }
        for one in kinds
    ]
    document = {"instance": workshop.instance, "build": workshop.build.build_id, "types": rows}
    context.answer(document, lambda output: _print_types(output, rows))


def _print_types(output: Output, rows: Sequence[dict[str, Any]]) -> None:
    cells = [
        (
            row["type"], f"{row['bits_per_weight']:.2f}" if row["bits_per_weight"] else "",
            "yes" if row["needs_imatrix"] else "", row["remark"],
        )
        for row in rows
    ]  # fmt: skip
    output.table(("type", "bits", "needs imatrix", "llama.cpp says"), cells)


def _print_sizes(output: Output, rows: Sequence[dict[str, Any]]) -> None:
    output.table(("type", "size"), [(row["type"], size_words(row["size_bytes"])) for row in rows])
