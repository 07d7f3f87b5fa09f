"""What `show` prints of how a model was made, and of what was measured of it."""

from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context
from llama_mgr.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_mgr.make.ledger import Evaluation
    from llama_mgr.make.provenance import Provenance
    from llama_mgr.models.model import Model

_COMMAND_LIMIT = 600
_LISTED = 6


def print_making(output: Output, record: dict[str, Any] | None) -> None:
    """Print the steps from the checkpoint to the model, the first one first; nothing for what was not made here."""
    import msgspec

    from llama_mgr.make.provenance import provenance_in
    from llama_mgr.models.side_car import ModelRecord

    made = provenance_in(msgspec.convert(record, ModelRecord)) if record is not None else None
    if made is None:
        return
    output.line()
    output.line("how it was made:")
    source = made.origin()
    if source is not None:
        place = f"{source.repo}@{source.revision[:12]}" if source.repo else source.directory
        output.line(f"  from {printable(place, 400)}")
    for step in _steps(made):
        output.lines([f"  {line}" for line in _step_lines(step)])


def _steps(made: "Provenance") -> "list[Provenance]":
    steps = [made]
    while steps[-1].parent is not None:
        steps.append(steps[-1].parent)
    return steps[::-1]


def _step_lines(step: "Provenance") -> list[str]:
    build = step.build
    lines = [f"{step.step} by {build.build_id} ({build.version}, commit {build.commit[:12]}), {step.made_at}"]
    lines += [f"    {one.name}, sha256 {one.sha256[:16]}…" for one in step.inputs[:_LISTED]]
    if len(step.inputs) > _LISTED:
        lines.append(f"    and {len(step.inputs) - _LISTED} more files")
    if step.command:
        lines.append(f"    {printable(' '.join(step.command), _COMMAND_LIMIT)}")
    return lines


def measured_of(context: Context, model: "Model") -> "list[Evaluation]":
    """Return what the ledger has of a model, newest first; nothing where its content is not known."""
    from llama_mgr.make.ledger import Ledger, model_sha256

    sha256s = [model.sha256_of(file) for file in model.files]
    return Ledger(context.home, context.reporter).entries(model_sha256(sha256s)) if all(sha256s) else []


def print_measured(output: Output, entries: "Sequence[dict[str, Any]]") -> None:
    """Print what was measured of a model, one line for each time."""
    if not entries:
        return
    output.line()
    output.line("measured:")
    for one in entries[:_LISTED]:
        facts = [
            f"PPL {one['perplexity']:.3f}" if one["perplexity"] is not None else "",
            f"KLD {one['kld']:.4f} from {one['base']}" if one["kld"] is not None else "",
            f"same top {one['same_top'] * 100:.1f} %" if one["same_top"] is not None else "",
            f"{one['prompt_tokens_per_s']:.0f} t/s prompt" if one["prompt_tokens_per_s"] else "",
            f"{one['generation_tokens_per_s']:.0f} t/s generation" if one["generation_tokens_per_s"] else "",
        ]
        words = ", ".join(fact for fact in facts if fact)
        output.line(f"  {words}; {one['text']}, {one['build_id']}, {one['measured_at'][:10]}")
