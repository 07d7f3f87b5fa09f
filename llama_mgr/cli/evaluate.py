"""`llama-mgr evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.making import ChosenGguf, chosen_gguf, gpu_option, instance_option, threads_option, workshop_of
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.make.evaluate import Evaluator, Subject
    from llama_mgr.make.ledger import Evaluation
    from llama_mgr.make.workshop import Workshop


@click.command(
    epilog=examples(
        "llama-mgr evaluate my-model:Q4_K_M my-model:Q8_0 --base my-model:F16",
        "llama-mgr evaluate my-model --plot quants.svg          # all quants of it",
        "llama-mgr evaluate my-model --best-under 6GiB",
    )
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_models)
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE|DIR", help="What to measure over.")
@click.option("--base", metavar="MODEL", help="The unquantized model, to measure the divergence from.",
              shell_complete=complete_models)  # fmt: skip
@instance_option
@click.option("--ctx-size", "-c", "context_tokens", type=click.IntRange(8, 131_072), default=512, show_default=True,
              metavar="N", help="Tokens of one chunk.")  # fmt: skip
@click.option("--chunks", type=click.IntRange(0), default=0, metavar="N", help="At most so many; default all.")
@click.option("--no-speed", is_flag=True, help="Do not measure the speed.")
@click.option("--again", is_flag=True, help="Measure what was measured before, too.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), metavar="FILE", help="Draw it: .png, .svg, .pdf.")
@click.option("--best-under", metavar="SIZE", help="Say which is the best of at most this size, such as 6GiB.")
@threads_option
@gpu_option
@common_options
@pass_context
def evaluate(context: Context, /, **options: Any) -> None:  # noqa: ANN401
    """Measure models: perplexity, divergence, speed, memory.

    A name without a quant means all quants of the model. Without --base, the model that they were made from is the
    base if it is here. Results are kept in the ledger by content: what was measured before is only shown.
    """
    from llama_mgr.cli.evaluate_page import draw
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.make.pareto import best_under, size_in
    from llama_mgr.make.plot import require_plot_name

    limit = size_in(options["best_under"]) if options["best_under"] else None
    plot_file = absolute_path(options["plot_file"]) if options["plot_file"] else None
    if plot_file is not None:
        require_plot_name(plot_file)
    with workshop_of(context, options["instance"]) as workshop:
        entries = _evaluated(context, workshop, options)
    if plot_file is not None:
        draw(context, entries, entries[0].model.rpartition(":")[0], plot_file)
    best = best_under(entries, limit) if limit is not None else None
    _answer(context, entries, best, plot_file)


def _evaluated(context: Context, workshop: "Workshop", options: dict[str, Any]) -> "list[Evaluation]":
    from llama_mgr.make.evaluate import Evaluator
    from llama_mgr.make.texts import evaluation_text, text_at

    subjects = _subjects(context, options["models"])
    base = _base(context, subjects, options["base"])
    if base is not None and base.sha256 not in {one.sha256 for one in subjects} and options["base"] is None:
        context.reporter.note(f"the base is {base.name}, which they were made from")
    evaluator = Evaluator(
        workshop, text_at(options["text"]) if options["text"] else evaluation_text(), base,
        options["context_tokens"], options["chunks"], options["threads"] or 0, options["gpu_layers"],
        with_speed=not options["no_speed"], again=options["again"],
    )  # fmt: skip
    _require_programs(evaluator, subjects)
    return evaluator.evaluate(subjects)


def _require_programs(evaluator: "Evaluator", subjects: "Sequence[Subject]") -> None:
    if any(one.continues_text for one in subjects):
        evaluator.workshop.program("perplexity")
    if evaluator.with_speed:
        evaluator.workshop.program("bench")


def _subjects(context: Context, texts: Sequence[str]) -> "list[Subject]":
    """Return the models that `texts` name, each once; a name without a quant stands for all of its model."""
    found = {chosen.files: chosen for text in texts for chosen in _meant(context, text)}
    return [_subject(context, chosen) for chosen in found.values()]


def _meant(context: Context, text: str) -> list[ChosenGguf]:
    from llama_mgr.cli.model_choice import path_in
    from llama_mgr.errors import AmbiguousModelError
    from llama_mgr.models.library import Library
    from llama_mgr.models.matching import matches

    try:
        chosen = chosen_gguf(context, text)
    except AmbiguousModelError:
        if ":" in text:
            raise
        found = matches(text, Library(context.models_home, context.reporter).catalog().models)
        if len({model.name for model in found}) != 1:
            raise
        return [ChosenGguf(one.name, one.key, one.quant, one.files, None) for one in found]
    if ":" in text or path_in(text) is not None or text.lower().endswith(".gguf"):
        return [chosen]
    same = [one for one in Library(context.models_home, context.reporter).catalog().models if one.name == chosen.name]
    return [ChosenGguf(one.name, one.key, one.quant, one.files, None) for one in same] or [chosen]


def _subject(context: Context, chosen: ChosenGguf) -> "Subject":
    from llama_mgr.make.evaluate import Subject
    from llama_mgr.make.gguf_input import gguf_input

    return Subject(chosen.key, chosen.quant, gguf_input(chosen.files, context.reporter))


def _base(context: Context, subjects: "Sequence[Subject]", chosen: str | None) -> "Subject | None":
    """Return the base that the user named, or the model that the first quant was made from, if it is here."""
    if chosen is not None:
        return _subject(context, chosen_gguf(context, chosen))
    from llama_mgr.models.library import Library

    wanted = {one.model.parent_sha256 for one in subjects} - {""}
    if len(wanted) != 1:
        return None
    found = next((one for one in subjects if one.sha256 in wanted), None)
    if found is not None:
        return found
    models = Library(context.models_home, context.reporter).catalog().models
    here = next((one for one in models if one.sha256 in wanted), None)
    return _subject(context, ChosenGguf(here.name, here.key, here.quant, here.files, None)) if here else None


def _answer(
    context: Context, entries: "Sequence[Evaluation]", best: "Evaluation | None", plot_file: Path | None
) -> None:
    from llama_mgr.cli.evaluate_page import evaluation_documents, print_evaluations

    document = {
        "evaluations": evaluation_documents(entries),
        "best": best.model if best else None,
        "plot": str(plot_file) if plot_file else None,
    }

    def show(output: Output) -> None:
        print_evaluations(output, entries)
        if best is not None:
            output.line(f"best: {best.model} ({size_words(best.size_bytes)})")
        if plot_file is not None:
            output.line(f"plot: {plot_file}")

    context.answer(document, show)
