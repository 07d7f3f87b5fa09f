"""The last step of `make`: what was made goes to the hub, with a card that tells how."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.cli.context import Context

if TYPE_CHECKING:
    from llama_mgr.make.model_card import CardFacts, CardRow
    from llama_mgr.make.provenance import Provenance
    from llama_mgr.make.run_record import RunRecord, StepRecord


def checked_upload(context: Context, repo: str) -> None:
    """Refuse, before the work begins, an upload that cannot work.

    Raises:
        BadInputError: `repo` has not the form `owner/repo`.
        RemoteDeniedError: nobody is logged in.
    """
    from llama_mgr.errors import RemoteDeniedError
    from llama_mgr.models.import_source import checked_model_name

    checked_model_name(repo, "--upload")
    if context.hub.login is None:
        hint = "log in with `hf auth login`, or set HF_TOKEN"
        raise RemoteDeniedError("cannot upload to", repo, "the hub wants to know who you are", hint=hint)


def uploaded(context: Context, record: "RunRecord", repo: str, *, private: bool) -> str:
    """Push the files of a run to `repo`; return the address of its page."""
    from llama_mgr.make.model_card import model_card
    from llama_mgr.models.hub_upload import Uploader, UploadFile

    files = [
        UploadFile(Path(file), Path(file).name, sha256)
        for step in record.steps
        for file, sha256 in zip(step.files, step.sha256s, strict=True)
    ]
    card = model_card(_card_facts(record, repo))
    done = Uploader(context.hub, context.reporter).upload(
        repo, files, card, private=private, message=f"{record.model} by llama-mgr"
    )
    return done.url


def _card_facts(record: "RunRecord", repo: str) -> "CardFacts":
    from llama_mgr.make.model_card import CardFacts
    from llama_mgr.make.provenance import provenance_of

    made = [(step, provenance_of(Path(step.files[0]))) for step in record.steps if step.files]
    convert = next((one.of_step("convert") for _, one in made if one), None)
    matrix = next((step for step in record.steps if step.step == "imatrix"), None)
    first = record.evaluations[0] if record.evaluations else None
    return CardFacts(
        name=record.model.rpartition("/")[2], repo=repo, source_repo=record.source.repo or None,
        source_revision=record.source.revision or None, license=_license(made),
        rows=tuple(_row(record, step) for step, _ in made if step.step != "imatrix"),
        commands=tuple(shlex.join(one.command) for _, one in made if one),
        build_id=record.build.build_id, build_version=record.build.version, build_commit=record.build.commit,
        converter_commit=convert.build.commit if convert else "",
        imatrix_sha256=matrix.sha256s[0] if matrix else None, imatrix_text=matrix.what if matrix else None,
        evaluation_text=first.text if first else None, devices=first.devices if first else None,
        made_at=record.started_at,
    )  # fmt: skip


def _license(made: "list[tuple[StepRecord, Provenance | None]]") -> str | None:
    from llama_mgr.models.gguf import read_gguf
    from llama_mgr.models.traits import traits_of

    file = Path(made[0][0].files[0])
    return traits_of(read_gguf(file), file.name).license


def _row(record: "RunRecord", step: "StepRecord") -> "CardRow":
    from llama_mgr.make.ledger import model_sha256
    from llama_mgr.make.model_card import CardFile, CardRow
    from llama_mgr.models.gguf import read_gguf
    from llama_mgr.models.traits import merged, traits_of

    parts = [traits_of(read_gguf(Path(file)), Path(file).name) for file in step.files]
    traits = merged(parts) if len(parts) > 1 else parts[0]
    measured = next((one for one in record.evaluations if one.model_sha256 == model_sha256(step.sha256s)), None)
    files = tuple(CardFile(Path(file).name, sha256) for file, sha256 in zip(step.files, step.sha256s, strict=True))
    if measured is None:
        return CardRow(
            files=files, quant=traits.quant, size_bytes=step.size_bytes, bits_per_weight=traits.bits_per_weight
        )
    return CardRow(
        files=files, quant=traits.quant, size_bytes=step.size_bytes, bits_per_weight=traits.bits_per_weight,
        perplexity=measured.perplexity, perplexity_error=measured.perplexity_error, kld=measured.kld,
        same_top=measured.same_top, prompt_tokens_per_s=measured.prompt_tokens_per_s,
        generation_tokens_per_s=measured.generation_tokens_per_s,
    )  # fmt: skip
