"""Which models of the library were made by code that has changed: records against the code of a build."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import msgspec

from llama_mgr.make.converter_code import ConverterCode, converter_code
from llama_mgr.make.provenance import Provenance, provenance_in
from llama_mgr.make.staleness import MadeWith, NowWith, Staleness, quantizer_code, verdict
from llama_mgr.make.workshop import Workshop
from llama_mgr.models.model import Model


@dataclass(frozen=True)
class Judged:
    """A model that was made here, and what became of the code since."""

    model: Model
    made: Provenance
    staleness: Staleness

    @property
    def made_by(self) -> str:
        """The builds that converted and quantized it."""
        steps = [self.made.of_step(step) for step in ("convert", "quantize")]
        return ", ".join(dict.fromkeys(one.build.build_id for one in steps if one is not None))


def judged(workshop: Workshop, models: Sequence[Model]) -> list[Judged]:
    """Return `models` that were made here, with what their records and the code of the build say together."""
    quantizer = quantizer_code(workshop.home, workshop.build, workshop.user_environ, workshop.reporter)
    code = cache(partial(_converter_now, workshop))  # the quants of a model share it
    found = []
    for model in models:
        made = provenance_in(model.record)
        if made is not None:
            found.append(Judged(model, made, verdict(_made_with(made), _now_with(workshop, made, quantizer, code))))
    return found


def _converter_now(workshop: Workshop, architectures: tuple[str, ...], mmproj: bool) -> ConverterCode:
    return converter_code(workshop.prefix / "convert", architectures, mmproj=mmproj)


def _made_with(made: Provenance) -> MadeWith:
    convert, quantize = made.of_step("convert"), made.of_step("quantize")
    first = convert or quantize or made
    return MadeWith(
        converter_commit=convert.build.commit if convert else "",
        converter_code=_code(convert) if convert else None,
        quantizer_commit=quantize.build.commit if quantize else "",
        quantizer_code=_quantizer_code(quantize) if quantize else {},
        build_version=first.build.version,
    )


def _now_with(
    workshop: Workshop,
    made: Provenance,
    quantizer: dict[str, str],
    code_of: Callable[[tuple[str, ...], bool], ConverterCode],
) -> NowWith:
    convert, commit = made.of_step("convert"), workshop.build.plan.commit
    code = None
    if convert is not None and workshop.build.converter is not None:
        code = code_of(_architectures(convert), bool(convert.options.get("mmproj")))
    return NowWith(
        converter_commit=commit if convert else "", converter_code=code, quantizer_commit=commit,
        quantizer_code=quantizer, build_version=workshop.build.plan.version,
    )  # fmt: skip


def _architectures(convert: Provenance) -> tuple[str, ...]:
    try:
        return msgspec.convert(convert.options.get("architectures", []), tuple[str, ...])
    except msgspec.ValidationError:
        return ()


def _code(convert: Provenance) -> ConverterCode | None:
    try:
        return msgspec.convert(convert.code.get("converter"), ConverterCode)
    except msgspec.ValidationError:
        return None


def _quantizer_code(quantize: Provenance) -> dict[str, str]:
    try:
        return msgspec.convert(quantize.code.get("quantizer", {}), dict[str, str])
    except msgspec.ValidationError:
        return {}
