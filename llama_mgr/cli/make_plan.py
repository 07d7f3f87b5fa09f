"""From what a user wants of `make` to what a pipeline shall do."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_mgr.cli.context import Context
from llama_mgr.cli.making import chosen_gguf, place_of

if TYPE_CHECKING:
    from llama_mgr.make.pipeline import Wanted
    from llama_mgr.make.pipeline_file import Pipeline


def wanted_of(context: Context, pipeline: "Pipeline", options: dict[str, Any]) -> "Wanted":
    """Return what `pipeline` wants; a checkpoint of the hub is pulled now.

    Raises: as `checkpoint_source`, `inspect_checkpoint`, `chosen_gguf` and `text_at`.
    """
    is_gguf = _is_gguf(context, pipeline.source)
    wanted = (_of_gguf if is_gguf else _of_checkpoint)(context, pipeline, options)
    return _with_texts(wanted, pipeline)


def _of_checkpoint(context: Context, pipeline: "Pipeline", options: dict[str, Any]) -> "Wanted":
    from llama_mgr.cli.checkpoint_choice import chosen_checkpoint
    from llama_mgr.make.checkpoint_dir import inspect_checkpoint
    from llama_mgr.make.convert import ConvertOptions
    from llama_mgr.make.pipeline import Wanted

    trusts = options["trust_remote_code"]
    source = chosen_checkpoint(context, pipeline.source, with_code=trusts)
    checkpoint = inspect_checkpoint(source.directory, trust_remote_code=trusts)
    name = _checked_name(pipeline) or source.model
    return Wanted(
        place_of(context, name, options["output"]), tuple(pipeline.quants), source.record, checkpoint,
        known=source.known, convert=ConvertOptions(outtype=pipeline.outtype, trust_remote_code=trusts),
    )  # fmt: skip


def _of_gguf(context: Context, pipeline: "Pipeline", options: dict[str, Any]) -> "Wanted":
    from llama_mgr.make.pipeline import Wanted
    from llama_mgr.make.provenance import SourceRecord, provenance_of

    chosen = chosen_gguf(context, pipeline.source)
    made = provenance_of(chosen.files[0])
    source = (made.origin() if made else None) or SourceRecord(directory=str(chosen.files[0].parent))
    name = _checked_name(pipeline)
    place = place_of(context, name or chosen.name, options["output"], None if name else chosen.directory)
    return Wanted(place, tuple(pipeline.quants), source, model=chosen.files)


def _checked_name(pipeline: "Pipeline") -> str:
    from llama_mgr.models.import_source import checked_model_name

    return checked_model_name(pipeline.name) if pipeline.name else ""


def _is_gguf(context: Context, text: str) -> bool:
    """Tell whether `text` is a GGUF: a file, or a model of the library with its quant, but no checkpoint."""
    from llama_mgr.cli.model_choice import with_key
    from llama_mgr.models.library import Library

    path = Path(text).expanduser()
    if path.is_dir():
        return False
    if path.is_file() or text.lower().endswith(".gguf"):
        return True
    return ":" in text and bool(with_key(text, Library(context.models_home, context.reporter).catalog().models))


def _with_texts(wanted: "Wanted", pipeline: "Pipeline") -> "Wanted":
    from llama_mgr.cli.model_choice import absolute_path
    from llama_mgr.make.imatrix import ImatrixOptions, require_imatrix
    from llama_mgr.make.pipeline_file import AUTO_IMATRIX, NO_IMATRIX
    from llama_mgr.make.texts import calibration_text, evaluation_text, text_at

    calibration = evaluation = imatrix = None
    if pipeline.imatrix == AUTO_IMATRIX:
        calibration = text_at(Path(pipeline.text)) if pipeline.text else calibration_text()
    elif pipeline.imatrix != NO_IMATRIX:
        imatrix = absolute_path(Path(pipeline.imatrix))
        require_imatrix(imatrix)
    if pipeline.evaluate:
        evaluation = text_at(Path(pipeline.evaluation_text)) if pipeline.evaluation_text else evaluation_text()
    return replace(
        wanted, calibration=calibration, imatrix=imatrix, evaluation=evaluation,
        matrix=ImatrixOptions(context_tokens=pipeline.context_tokens, chunks=pipeline.chunks),
        context_tokens=pipeline.context_tokens, chunks=pipeline.chunks,
    )  # fmt: skip
