"""`llama-mgr imatrix`."""

from pathlib import Path
from typing import Any

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.making import (
    chosen_gguf,
    force_option,
    gpu_option,
    instance_option,
    made_document,
    output_option,
    place_of,
    print_made,
    threads_option,
    workshop_of,
)


@click.command(
    epilog=examples(
        "llama-mgr imatrix my-model:F16                       # over the text that comes with llama-mgr",
        "llama-mgr imatrix my-model:F16 --text ./my-texts     # all .txt and .md files of a folder",
        "llama-mgr imatrix --statistics my-model.imatrix.gguf",
    )
)
@click.argument("model", metavar="MODEL|FILE", shell_complete=complete_models)
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE|DIR", help="What to compute it over.")
@output_option
@instance_option
@click.option("--ctx-size", "-c", "context_tokens", type=click.IntRange(8, 131_072), default=512, show_default=True,
              metavar="N", help="Tokens of one chunk.")  # fmt: skip
@click.option("--chunks", type=click.IntRange(0), default=0, metavar="N", help="At most so many; default all.")
@click.option("--process-output", is_flag=True, help="Also for the output matrix.")
@click.option("--parse-special", is_flag=True, help="Take <|...|> in the text as special tokens.")
@click.option("--statistics", is_flag=True, help="Show what is in an importance matrix.")
@threads_option
@gpu_option
@force_option
@common_options
@pass_context
def imatrix(context: Context, /, **options: Any) -> None:  # noqa: ANN401
    """Compute an importance matrix over a text.

    It tells which weights matter, for better small quants. What was done before a kill is used again. Then:
    llama-mgr quantize MODEL IQ4_XS --imatrix FILE
    """
    with workshop_of(context, options["instance"]) as workshop:
        from llama_mgr.make.gguf_input import gguf_input
        from llama_mgr.make.imatrix import ImatrixMaker, ImatrixOptions
        from llama_mgr.make.output import Replacing
        from llama_mgr.make.texts import calibration_text, text_at

        chosen_options = ImatrixOptions(
            context_tokens=options["context_tokens"], chunks=options["chunks"],
            process_output=options["process_output"], parse_special=options["parse_special"],
        )  # fmt: skip
        replacing = Replacing(force=options["force"])
        maker = ImatrixMaker(workshop, chosen_options, options["threads"] or 0, options["gpu_layers"], replacing)
        if options["statistics"]:
            lines = maker.statistics(Path(options["model"]).absolute())
            context.answer({"lines": lines}, lambda output: output.lines(lines))
            return
        chosen = chosen_gguf(context, options["model"])
        text = text_at(options["text"]) if options["text"] else calibration_text()
        place = place_of(context, chosen.name, options["output"], chosen.directory)
        made = maker.compute(gguf_input(chosen.files, context.reporter), text, place)
        context.answer(made_document(made), lambda output: print_made(output, [made]))
