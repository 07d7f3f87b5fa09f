"""`llama-mgr make`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.completing import complete_pipelines
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.making import (
    environment_of,
    force_option,
    gpu_option,
    instance_option,
    output_option,
    threads_option,
    workshop_of,
)
from llama_mgr.errors import BadInputError

if TYPE_CHECKING:
    from llama_mgr.make.pipeline_file import Pipeline
    from llama_mgr.make.run_record import RunRecord


@click.command(
    epilog=examples(
        "llama-mgr make owner/repo --quants Q8_0,Q6_K,Q4_K_M,IQ4_XS --imatrix auto --evaluate",
        "llama-mgr make ./my-finetune --pipeline everyday      # as recipes/pipelines/everyday.toml says",
        "llama-mgr make --again my-model                       # what is stale, with the current instance",
    )
)
@click.argument("source", required=False, metavar="[OWNER/REPO|DIR|GGUF]")
@click.option("--pipeline", "pipeline_name", metavar="NAME|FILE", help="Do what a pipeline file says.",
              shell_complete=complete_pipelines)  # fmt: skip
@click.option("--quants", metavar="TYPE,TYPE...", help="The types to make.")
@click.option("--imatrix", metavar="auto|none|FILE", help="Importance matrix: computed now, none, or a file.")
@click.option("--text", metavar="FILE|DIR", help="What an importance matrix is computed over.")
@click.option("--evaluate/--no-evaluate", default=None, help="Measure all that was made.")
@click.option("--evaluation-text", metavar="FILE|DIR", help="What to measure over.")
@click.option(
    "--ctx-size", "-c", "context_tokens", type=click.IntRange(8, 131_072), metavar="N", help="Tokens of a chunk."
)
@click.option("--chunks", type=click.IntRange(0), metavar="N", help="At most so many of each text.")
@click.option("--no-speed", is_flag=True, help="Do not measure the speed.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), metavar="FILE", help="Draw it: .png, .svg, .pdf.")
@click.option("--outtype", metavar="TYPE", help="What the checkpoint is converted to; default auto.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint, and read pickles.")
@click.option("--name", metavar="OWNER/REPO", help="What to call the model in the library.")
@output_option
@click.option("--upload", metavar="OWNER/REPO", help="Push the result to the hub, with a model card.")
@click.option("--private", is_flag=True, help="A repository that is made for it is private.")
@click.option("--again", is_flag=True, help="Make again what is stale; with --force all.")
@instance_option
@threads_option
@gpu_option
@force_option
@common_options
@pass_context
def make(context: Context, /, source: str | None, **options: Any) -> None:  # noqa: ANN401
    """Make quants of a checkpoint: from pull to measurement.

    Steps that were done before, with the same build, options and inputs, are not done again: after a kill or an error,
    the same command goes on. A GGUF that is there already is quantized and measured.
    """
    from llama_mgr.cli.make_page import answer_run, require_plot

    require_plot(options["plot_file"])
    if options["again"]:
        from llama_mgr.cli.make_again import make_again

        make_again(context, source, options)
        return
    pipeline = _pipeline(context, source, options)
    if options["plot_file"] and not pipeline.evaluate:
        raise BadInputError("cannot plot", options["plot_file"], "nothing is measured", hint="add --evaluate")
    record = _run(context, pipeline, options)
    answer_run(context, record, options["plot_file"])


def _pipeline(context: Context, source: str | None, options: dict[str, Any]) -> "Pipeline":
    """Return what shall be done: the pipeline file, overridden by the command line."""
    import msgspec

    from llama_mgr.make.pipeline_file import Pipeline, read_pipeline

    chosen = options["pipeline_name"]
    pipeline = read_pipeline(context.home, chosen) if chosen else Pipeline()
    flags = {
        "source": source, "name": options["name"], "outtype": options["outtype"], "imatrix": options["imatrix"],
        "text": options["text"], "evaluate": options["evaluate"], "evaluation_text": options["evaluation_text"],
        "context_tokens": options["context_tokens"], "chunks": options["chunks"], "upload": options["upload"],
        "quants": [options["quants"]] if options["quants"] else None, "instance": options["instance"],
    }  # fmt: skip
    wanted = msgspec.structs.replace(pipeline, **{name: value for name, value in flags.items() if value is not None})
    if not wanted.source:
        raise BadInputError("nothing to make quants of", hint="name OWNER/REPO, a directory, or a GGUF")
    if not wanted.quants:
        hint = "--quants Q8_0,Q4_K_M, or --pipeline everyday"
        raise BadInputError("cannot make quants of", wanted.source, "no type is named", hint=hint)
    return wanted


def _run(context: Context, pipeline: "Pipeline", options: dict[str, Any]) -> "RunRecord":
    from llama_mgr.cli.make_plan import wanted_of
    from llama_mgr.cli.make_upload import checked_upload, uploaded
    from llama_mgr.make.pipeline import PipelineRunner
    from llama_mgr.make.run_record import keep_run

    if pipeline.upload:
        checked_upload(context, pipeline.upload)
    with workshop_of(context, pipeline.instance or None) as workshop:
        runner = PipelineRunner(
            workshop, environment_of(context, workshop), options["threads"] or 0, options["gpu_layers"],
            with_speed=not options["no_speed"], force=options["force"],
        )  # fmt: skip
        record = runner.run(wanted_of(context, pipeline, options))
        if pipeline.upload:
            record.uploaded_to = uploaded(context, record, pipeline.upload, private=options["private"])
        keep_run(context.home, record)
    return record
