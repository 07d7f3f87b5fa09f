"""`llama-mgr info`."""

from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import AmbiguousModelError, BadReferenceError, IncompleteModelError, LlamaMgrError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_mgr.models.hub import HubFile, HubRepo
    from llama_mgr.models.memory import Machine
    from llama_mgr.models.model import Model
    from llama_mgr.models.quants import Offer
    from llama_mgr.models.reference import HubRef
    from llama_mgr.models.traits import Traits

_SHARDS_READ = 16  # the headers of more are not worth the requests


@click.command(
    epilog=examples(
        "llama-mgr info bartowski/Qwen2.5-7B-Instruct-GGUF",
        "llama-mgr info bartowski/Qwen2.5-7B-Instruct-GGUF:Q5_K_M    # what it is, and the memory it takes",
        "llama-mgr info smollm2 --json | jq '.quants[].quant'",
    )
)
@click.argument("reference")
@common_options
@pass_context
def info(context: Context, reference: str) -> None:
    """Show a repository on the hub: quants, sizes, what fits.

    REFERENCE is `owner/repo`, `owner/repo:QUANT`, `owner/repo/file.gguf`, each with `@revision`, or an alias. The
    header of the quant that is named, or that `pull` would take, is read from there; nothing is kept.
    """
    from llama_mgr.cli.info_page import print_info
    from llama_mgr.cli.machine import machine_of
    from llama_mgr.models.aliases import Aliases
    from llama_mgr.models.reference import HubRef, parse_hub_reference

    ref = parse_hub_reference(reference, Aliases(context.home))
    if not isinstance(ref, HubRef):
        raise BadReferenceError("cannot show", reference, "it is a URL; only repositories on the hub can be shown")
    repo = context.hub.repository(ref.name, ref.revision)
    document = _document(context, repo, ref, machine_of(context))
    context.answer(document, lambda output: print_info(output, document))


def _document(context: Context, repo: "HubRepo", ref: "HubRef", machine: "Machine") -> dict[str, Any]:
    from llama_mgr.models.memory import size_verdict
    from llama_mgr.models.quants import offers, projectors

    offered = offers(repo.files)
    taken, why_not = _taken(offered, ref, machine)
    here = _library_models(context)
    return {
        "repo": repo.repo,
        "url": f"{context.hub.endpoint}/{repo.repo}",
        "commit": repo.commit,
        "license": repo.license,
        "gated": repo.gated,
        "downloads": repo.downloads,
        "updated_at": repo.updated_at,
        "tags": list(repo.tags),
        "quants": [
            {
                "quant": offer.quant,
                "label": offer.label,
                "files": [file.name for file in offer.files],
                "size_bytes": offer.size_bytes,
                "missing_shards": list(offer.missing),
                "fits": size_verdict(offer.size_bytes, machine),
                "local": [str(model.files[0]) for model in here if _is_same(model, offer)],
                "is_chosen": offer == taken,
            }
            for offer in offered
        ],
        "projectors": [{"file": file.name, "size_bytes": file.size_bytes} for file in projectors(repo.files)],
        "chosen": _chosen_document(context, repo, taken, machine) if taken else None,
        "not_chosen": why_not,
        "card": _card(context, repo.files),
    }


def _taken(offered: "Sequence[Offer]", ref: "HubRef", machine: "Machine") -> "tuple[Offer | None, str | None]":
    """Return what `pull` would take; or nothing, and why, when only a name is missing."""
    from llama_mgr.models.memory import size_verdict
    from llama_mgr.models.quants import chosen

    is_named = bool(ref.quant or ref.file)
    if not offered and not is_named:
        return None, "it has no model in the GGUF format"
    try:
        return chosen(offered, ref, lambda size: size_verdict(size, machine, free=True) != "no"), None
    except (AmbiguousModelError, IncompleteModelError) as error:
        if is_named:
            raise
        return None, error.message


def _library_models(context: Context) -> "Sequence[Model]":
    from llama_mgr.models.library import Library

    try:
        return Library(context.models_home, context.reporter).catalog().models
    except LlamaMgrError as error:  # the library is not what was asked about
        context.reporter.warn(error.message)
        return ()


def _is_same(model: "Model", offer: "Offer") -> bool:
    """Tell whether a model of the library has the content of `offer`; of shards, the first one tells."""
    wanted = offer.files[0].sha256
    told = {model.sha256, model.record.sha256 if model.record else ""}
    return bool(wanted) and wanted in told and len(model.files) == len(offer.files)


def _chosen_document(context: Context, repo: "HubRepo", taken: "Offer", machine: "Machine") -> dict[str, Any]:
    from llama_mgr.cli.machine import memory_document
    from llama_mgr.models.memory import memory_plan
    from llama_mgr.models.quants import projectors

    document: dict[str, Any] = {"quant": taken.quant, "label": taken.label, "header": None, "memory": None}
    try:
        traits = _traits(context, taken.files)
    except LlamaMgrError as error:
        document["trouble"] = error.message
        return document
    beside = projectors(repo.files, taken.files[0].name)[:1]
    plan = memory_plan(traits, taken.size_bytes, mmproj_bytes=sum(file.size_bytes for file in beside))
    document["header"] = {
        "title": traits.title,
        "architecture": traits.architecture,
        "parameters": traits.parameters,
        "bits_per_weight": traits.bits_per_weight,
        "context_tokens": traits.context_tokens,
        "capabilities": list(traits.capabilities),
    }
    document["memory"] = memory_document(plan, machine)
    return document


def _traits(context: Context, files: "Sequence[HubFile]") -> "Traits":
    """Return the traits of a model on the hub, from the headers of its files."""
    from llama_mgr.models.gguf import parse_gguf
    from llama_mgr.models.traits import merged, traits_of

    if len(files) > _SHARDS_READ:
        raise IncompleteModelError("cannot read", files[0].name, f"it has {len(files)} shards, too many to look into")
    title = f"read the header of {files[0].name}"
    shards = []
    with context.reporter.progress(title, len(files), "steps") as progress:
        for number, file in enumerate(files):
            progress.update(number, len(files))
            shards.append(traits_of(parse_gguf(context.hub.source(file), file.name), file.name))
    return merged(shards) if len(shards) > 1 else shards[0]


def _card(context: Context, files: "Sequence[HubFile]") -> str | None:
    from llama_mgr.models.model_card import CARD_FILE, READ_LIMIT_BYTES, excerpt

    file = next((one for one in files if one.name == CARD_FILE), None)
    if file is None:
        return None
    try:
        return excerpt(context.hub.fetch_small(file, READ_LIMIT_BYTES)) or None
    except LlamaMgrError as error:
        context.reporter.note(error.message)
        return None
