"""`llama-mgr make --again`: what is stale is made anew, as its records say it was made, with the current instance."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context
from llama_mgr.cli.making import environment_of, workshop_of
from llama_mgr.cli.stale import made_models
from llama_mgr.errors import BadInputError, LlamaMgrError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_mgr.make.outdated import Judged
    from llama_mgr.make.pipeline import Wanted
    from llama_mgr.make.provenance import Provenance
    from llama_mgr.make.run_record import RunRecord

# Parameters of `make` whose values the records give.
_RECORDED = frozenset(
    {
        "pipeline_name", "quants", "imatrix", "text", "evaluate", "evaluation_text", "context_tokens", "chunks",
        "no_speed", "plot_file", "outtype", "name", "output", "upload", "private",
    }
)  # fmt: skip


@dataclass
class _Outcome:
    """What became of the groups of models."""

    records: "list[RunRecord]" = field(default_factory=list)
    failed: "list[tuple[Sequence[Judged], LlamaMgrError]]" = field(default_factory=list)


def make_again(context: Context, source: str | None, options: dict[str, Any]) -> None:
    """Make again what is stale of the model `source`, or of all; with --force, what is not, too.

    What cannot be made again is named, and the rest is made; the status is that of the first error.
    """
    from llama_mgr.make.outdated import judged
    from llama_mgr.make.pipeline import PipelineRunner
    from llama_mgr.make.run_record import keep_run

    _require_no_other_wish(options)
    outcome = _Outcome()
    with workshop_of(context, options["instance"]) as workshop:
        rows = judged(workshop, made_models(context, [source] if source else []))
        runner = PipelineRunner(
            workshop, environment_of(context, workshop), options["threads"] or 0, options["gpu_layers"],
            again=True,
        )  # fmt: skip
        for group in _groups([row for row in rows if row.staleness.state == "stale" or options["force"]]):
            try:
                outcome.records.append(runner.run(_wanted(context, group, trusts=options["trust_remote_code"])))
                keep_run(context.home, outcome.records[-1])
            except LlamaMgrError as error:
                outcome.failed.append((group, error))
    _answer(context, outcome)


def _require_no_other_wish(options: dict[str, Any]) -> None:
    for parameter in click.get_current_context().command.params:
        if parameter.name in _RECORDED and options[parameter.name] is not None and options[parameter.name] is not False:
            raise BadInputError(
                "cannot make again with", max(parameter.opts, key=len), "it is made as its record says it was made",
                hint="leave that out, or make it from its source: llama-mgr make SOURCE --quants ...",
            )  # fmt: skip


def _groups(rows: "Sequence[Judged]") -> "list[list[Judged]]":
    """Return the models that one run makes: of one conversion, with one set of options and one importance matrix."""
    groups: dict[tuple[str, ...], list[Judged]] = {}
    converted: dict[str, list[Judged]] = {}
    for row in rows:
        convert = row.made.of_step("convert")
        conversion = repr((row.model.name, row.model.files[0].parent, convert.digest if convert else ""))
        if row.made.step == "quantize":
            options = {name: value for name, value in row.made.options.items() if name != "type"}
            key = (conversion, row.made.imatrix_sha256, repr(sorted(options.items())))
            groups.setdefault(key, []).append(row)
        else:
            converted.setdefault(conversion, []).append(row)
    covered = {key[0] for key in groups}  # quants are made of what is converted anew for them
    return [*(group for key, group in converted.items() if key not in covered), *groups.values()]


def _wanted(context: Context, group: "Sequence[Judged]", *, trusts: bool) -> "Wanted":
    import msgspec

    from llama_mgr.cli.checkpoint_choice import chosen_checkpoint
    from llama_mgr.make.checkpoint_dir import inspect_checkpoint
    from llama_mgr.make.convert import ConvertOptions
    from llama_mgr.make.output import Place
    from llama_mgr.make.pipeline import Wanted
    from llama_mgr.make.quantize_options import QuantizeOptions

    first = group[0]
    model, convert = first.model, first.made.of_step("convert")
    if convert is None or convert.source is None:
        raise RefusedError(
            "cannot make again", model.key, "its record does not say which checkpoint it came from",
            hint="make it from its source: llama-mgr make SOURCE --quants ...",
        )  # fmt: skip
    source = convert.source
    text = f"{source.repo}@{source.revision}" if source.repo else source.directory
    checkpoint = chosen_checkpoint(context, text, with_code=trusts)
    quants = tuple(str(row.made.options["type"]) for row in group if row.made.step == "quantize")
    matrix = _matrix_of(first.made, model.files[0].parent)
    return Wanted(
        Place(model.files[0].parent, is_library=model.root.is_own, model=model.name), quants, checkpoint.record,
        inspect_checkpoint(checkpoint.directory, trust_remote_code=trusts), known=checkpoint.known,
        convert=msgspec.convert({**convert.options, "trust_remote_code": trusts}, ConvertOptions),
        quantize=msgspec.convert(first.made.options, QuantizeOptions), **matrix,
    )  # fmt: skip


def _matrix_of(made: "Provenance", directory: Path) -> dict[str, Any]:
    """Return the fields of `Wanted` that give its importance matrix: how to compute it over our text, or the file."""
    import msgspec

    from llama_mgr.make.imatrix import ImatrixOptions
    from llama_mgr.make.provenance import provenance_of
    from llama_mgr.make.texts import calibration_text
    from llama_mgr.models.side_car import read_record

    if not made.imatrix_sha256:
        return {}
    ours = calibration_text()
    for file in sorted(directory.glob("*.imatrix.gguf")):
        record, matrix = read_record(file), provenance_of(file)
        if record is None or record.sha256 != made.imatrix_sha256:
            continue
        if matrix is None or matrix.text_sha256 != ours.sha256:  # over a text that we no longer have
            return {"imatrix": file}
        return {"calibration": ours, "matrix": msgspec.convert(matrix.options, ImatrixOptions)}
    raise RefusedError(
        "cannot make again", directory, "the importance matrix that it was made with is no longer there",
        hint="make it from its source: llama-mgr make SOURCE --quants ... --imatrix auto",
    )  # fmt: skip


def _answer(context: Context, outcome: _Outcome) -> None:
    """Print what was made and what could not be, then end with the status of the first error."""
    from llama_mgr.cli.make_page import print_run, run_document

    first = outcome.failed[0][1] if outcome.failed else None
    failed = [([row.model.key for row in group], error) for group, error in outcome.failed]
    document = {
        "runs": [run_document(record) for record in outcome.records],
        "failed": [{"models": models, **error.as_document()} for models, error in failed],
    }

    def show(output: Output) -> None:
        for record in outcome.records:
            print_run(output, record)
        if failed:
            rows = [(", ".join(models), error.message, error.hint or "") for models, error in failed]
            output.table(("not made again", "why", "hint"), rows)
        elif not outcome.records:
            output.line("nothing is stale")

    context.answer(document, show, first)
