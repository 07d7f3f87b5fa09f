"""What `make` answers: one table, one document."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context
from llama_mgr.text import duration_words, size_words

if TYPE_CHECKING:
    from llama_mgr.make.run_record import RunRecord, StepRecord


def require_plot(file: Path | None) -> None:
    """Refuse a name that no picture can have, before the work begins."""
    if file is not None:
        from llama_mgr.make.plot import require_plot_name

        require_plot_name(file)


def answer_run(context: Context, record: "RunRecord", plot_file: Path | None) -> None:
    """Give the result of a run: the steps, the measurements, and the plot if one is wanted."""
    plotted = _plotted(context, record, plot_file)
    document = run_document(record) | {"plot": str(plotted) if plotted else None}
    context.answer(document, lambda output: print_run(output, record, plotted))


def _plotted(context: Context, record: "RunRecord", file: Path | None) -> Path | None:
    if file is None:
        return None
    from llama_mgr.cli.evaluate_page import draw
    from llama_mgr.cli.model_choice import absolute_path

    place = absolute_path(file)
    draw(context, record.evaluations, record.model, place)
    return place


def run_document(record: "RunRecord") -> dict[str, Any]:
    """Return a run as `--json` prints it."""
    import msgspec

    from llama_mgr.cli.evaluate_page import evaluation_documents

    document: dict[str, Any] = msgspec.to_builtins(record)
    return document | {"evaluations": evaluation_documents(record.evaluations), "did_nothing": record.did_nothing}


def print_run(output: Output, record: "RunRecord", plotted: Path | None = None) -> None:
    """Print what a run did: its steps, and what was measured."""
    steps = [step for step in record.steps if step.step != "evaluate"]
    output.table(("step", "what", "size", "state", "file"), [_cells(step) for step in steps])
    for directory in dict.fromkeys(str(Path(file).parent) for step in steps for file in step.files):
        output.line(f"in {directory}")
    if record.evaluations:
        from llama_mgr.cli.evaluate_page import print_evaluations

        output.line()
        print_evaluations(output, record.evaluations)
    if plotted is not None:
        output.line(f"plot: {plotted}")
    if record.uploaded_to:
        output.line(f"uploaded to {record.uploaded_to}")
    if record.did_nothing:
        output.line("nothing had to be done")


def _cells(step: "StepRecord") -> tuple[str, ...]:
    state = f"{step.state}, {duration_words(step.took_s)}" if step.took_s else step.state
    return step.step, step.what, size_words(step.size_bytes), state, Path(step.files[0]).name if step.files else ""
