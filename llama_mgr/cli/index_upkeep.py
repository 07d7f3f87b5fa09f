"""`llama-mgr index rebuild`, `verify` and `prune`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.confirmation import confirm_removal
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import IntegrityError
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.models.library import Catalog
    from llama_mgr.models.model import Broken, Model
    from llama_mgr.models.verification import Verified


@click.command(epilog=examples("llama-mgr index rebuild", "llama-mgr index rebuild --json"))
@common_options
@pass_context
def rebuild(context: Context) -> None:
    """Read all headers again, and make the index anew.

    The index is a cache: `list` does this by itself for files that are new or have changed.
    """
    from llama_mgr.models.library import Library

    catalog = Library(context.models_home, context.reporter).rebuild()
    models, broken = len(catalog.models), len(catalog.broken)

    def show(output: Output) -> None:
        output.line(f"the index has {models} model{'' if models == 1 else 's'}; {broken} broken")

    context.answer({"models": models, "broken": broken}, show)


@click.command(
    epilog=examples(
        "llama-mgr index verify                 # hash all files of the library",
        "llama-mgr index verify qwen2.5:q4_k_m",
        "llama-mgr index verify --quick         # headers and shards only; shows what `list` leaves out",
    )
)
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_models)
@click.option("--quick", is_flag=True, help="Do not hash: only look at headers, sizes and shards.")
@common_options
@pass_context
def verify(context: Context, models: tuple[str, ...], quick: bool) -> None:
    """Check that models are whole; status 5 if something is wrong.

    Each file is hashed and compared with the sha256 in its side-car. MODEL restricts it to some models, which may be
    those of watched directories.
    """
    from llama_mgr.models.library import Library
    from llama_mgr.models.verification import Verifier

    catalog = Library(context.models_home, context.reporter).catalog()
    chosen, broken = _chosen(context, models, catalog)
    verified = Verifier(context.models_home, context.reporter).verify(chosen, broken, with_hashes=not quick)
    context.answer(_document(verified), lambda output: _print(output, verified))
    if verified.findings:
        first = verified.findings[0]
        more = f", and {len(verified.findings) - 1} more" if len(verified.findings) > 1 else ""
        raise IntegrityError("cannot use", first.path, f"{first.why}{more}", hint=first.mend)


def _chosen(context: Context, texts: Sequence[str], catalog: "Catalog") -> "tuple[list[Model], list[Broken]]":
    from llama_mgr.cli.model_choice import chosen_model, path_in
    from llama_mgr.models.verification import selected

    if not texts:
        return selected(catalog)
    models: list[Model] = []
    broken: list[Broken] = []
    for text in texts:
        path = path_in(text)
        damaged = [one for one in catalog.broken if path is not None and path in (one.path, *one.files)]
        broken += damaged
        if not damaged:
            models.append(chosen_model(context, text, catalog))
    return models, broken


def _document(verified: "Verified") -> dict[str, Any]:
    import dataclasses

    findings = [{**dataclasses.asdict(one), "path": str(one.path)} for one in verified.findings]
    return {**dataclasses.asdict(verified), "findings": findings}


def _print(output: Output, verified: "Verified") -> None:
    for one in verified.findings:
        output.line(f"{printable(one.path, 1000)}: {one.why}")
        if one.expected:
            output.line(f"  sha256 {one.found}")
            output.line(f"  wanted {one.expected}")
        output.line(f"  mend: {one.mend}")
    hashed = f"{verified.hashed_files} hashed ({size_words(verified.hashed_bytes)})"
    unknown = f", {verified.without_sha256} without a known sha256" if verified.without_sha256 else ""
    wrong = f"{len(verified.findings)} wrong" if verified.findings else "nothing is wrong"
    output.line(f"{verified.files} file{'' if verified.files == 1 else 's'}, {hashed}{unknown}: {wrong}")


@click.command(
    epilog=examples(
        "llama-mgr index prune --dry-run   # what interrupted downloads left",
        "llama-mgr index prune -y",
    )
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@common_options
@pass_context
def prune(context: Context, dry_run: bool, yes: bool) -> None:
    """Remove what interrupted downloads and imports left.

    A pull that was interrupted goes on from there, so that nothing is removed unless you say so. What a running command
    works on stays.
    """
    from llama_mgr.models.leftovers import leftovers, remove_leftover

    home = context.models_home
    found = leftovers(home)
    if found and not dry_run:
        what = f"{len(found)} leftover{'' if len(found) == 1 else 's'}"
        total = size_words(sum(one.size_bytes for one in found))
        confirm_removal(what, total, [one.path for one in found], yes=yes)
    removed = found if dry_run else [one for one in found if remove_leftover(home, one)]
    freed_bytes = sum(one.size_bytes for one in removed)
    rows = [{"path": str(one.path), "size_bytes": one.size_bytes, "modified_at": one.modified_at} for one in removed]
    document = {"dry_run": dry_run, "removed": rows, "freed_bytes": freed_bytes}

    def show(output: Output) -> None:
        for one in removed:
            output.line(f"{printable(one.path, 1000)} ({size_words(one.size_bytes)}, from {one.modified_at[:10]})")
        output.line(f"{'would free' if dry_run else 'freed'} {size_words(freed_bytes)}")

    context.answer(document, show)
