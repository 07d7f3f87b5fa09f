"""The pipeline: checkpoint, GGUF, importance matrix, quants, measurements. A step that was done is not done again.

What was done is told by the side-cars of the files and by the ledger alone: a step has a digest over its build, its
options and the contents of its inputs, and a file whose side-car has that digest is its result.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llama_mgr.errors import BadInputError, ImatrixNeededError
from llama_mgr.make.checkpoint_dir import CheckpointDir
from llama_mgr.make.convert import Converter, ConvertOptions
from llama_mgr.make.evaluate import Evaluator, Subject
from llama_mgr.make.gguf_input import GgufInput, gguf_input
from llama_mgr.make.imatrix import ImatrixMaker, ImatrixOptions
from llama_mgr.make.inputs import known_inputs
from llama_mgr.make.ledger import Evaluation
from llama_mgr.make.output import Made, Place, Replacing
from llama_mgr.make.provenance import InputRecord, SourceRecord
from llama_mgr.make.python_env import Environment
from llama_mgr.make.quant_types import checked_types, needs_imatrix
from llama_mgr.make.quantize import Quantizer
from llama_mgr.make.quantize_options import QuantizeOptions
from llama_mgr.make.run_record import MADE, UNCHANGED, RunRecord, StepRecord, begun_run, step_of
from llama_mgr.make.texts import Text
from llama_mgr.make.workshop import Workshop


@dataclass(frozen=True)
class Wanted:
    """What a pipeline shall give."""

    place: Place
    quants: tuple[str, ...]
    source: SourceRecord
    checkpoint: CheckpointDir | None = None
    """What is converted; None when `model` is there already."""
    model: tuple[Path, ...] = ()
    """The unquantized GGUF to begin with."""
    known: Mapping[str, InputRecord] = field(default_factory=dict)
    """Contents of the checkpoint's files that somebody vouches for."""
    convert: ConvertOptions = field(default_factory=ConvertOptions)
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    calibration: Text | None = None
    """The text that an importance matrix is computed over; None computes none."""
    matrix: ImatrixOptions = field(default_factory=ImatrixOptions)
    """How it is computed."""
    imatrix: Path | None = None
    """A matrix that is there already."""
    evaluation: Text | None = None
    """The text that all is measured over; None measures nothing."""
    context_tokens: int = 512
    """Of a chunk of that text."""
    chunks: int = 0
    """At most so many of that text; 0 is all of it."""


@dataclass
class PipelineRunner:
    """Makes models with one build.

    `force` replaces files of another making, and goes on where the disk seems small; `again` replaces only what was
    made from the same checkpoint, by hand or not.
    """

    workshop: Workshop
    environment: Callable[[], Environment]
    threads: int = 0
    gpu_layers: int | None = None
    with_speed: bool = True
    force: bool = False
    again: bool = False

    def require_possible(self, wanted: Wanted) -> Wanted:
        """Return `wanted` with its types as the build spells them, after all that can be checked before the first step.

        Raises:
            BadQuantTypeError: the build does not know a type.
            ImatrixNeededError: a type needs an importance matrix, and none is wanted.
            UnknownToolError: it lacks a program that a step needs.
            BadInputError, IncompleteSourceError: as the steps would say it.
        """
        quants = checked_types(wanted.quants, self.workshop.capabilities.quant_types) if wanted.quants else ()
        if wanted.imatrix is None and wanted.calibration is None:
            _require_no_need(quants)
        tools = ["quantize"]
        tools += ["imatrix"] if wanted.calibration else []
        tools += ["perplexity", *(["bench"] if self.with_speed else [])] if wanted.evaluation else []
        for tool in tools:
            self.workshop.program(tool)
        if wanted.checkpoint is not None:
            self._converter(wanted).require_possible(wanted.checkpoint)
        elif not wanted.model:
            raise BadInputError("cannot make anything", None, "neither a checkpoint nor a model is named")
        return replace(wanted, quants=quants)

    def run(self, wanted: Wanted) -> RunRecord:
        """Do every step of `wanted` that is not done yet; return what was done.

        On disk afterwards: all files with side-cars, and what was measured in the ledger. After an error or a kill:
        the results of the steps before; the next call goes on from there.

        Raises: as the steps.
        """
        wanted = self.require_possible(wanted)
        record = begun_run(wanted.place.model, wanted.source, self.workshop.origin)
        base = self._converted(wanted, record)
        matrix = self._matrix(wanted, base, record)
        made = self._quantized(wanted, base, matrix, record)
        if wanted.evaluation is not None:
            record.evaluations = self._measured(wanted, base, made, record)
        return record

    def _replacing(self, wanted: Wanted) -> Replacing:
        return Replacing(self.force, wanted.source, self.again)

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _converter(self, wanted: Wanted) -> Converter:
        return Converter(self.workshop, self.environment, wanted.convert, replacing=self._replacing(wanted))

    def _converted(self, wanted: Wanted, record: RunRecord) -> GgufInput:
        if wanted.checkpoint is None:
            return gguf_input(wanted.model, self.workshop.reporter)
        known = {**known_inputs(_made_files(wanted.place)), **wanted.known}
        made = self._converter(wanted).convert(wanted.checkpoint, wanted.place, wanted.source, known)
        record.steps.append(step_of("convert", wanted.convert.outtype, made))
        return gguf_input(made.files, self.workshop.reporter)

    def _matrix(self, wanted: Wanted, base: GgufInput, record: RunRecord) -> Path | None:
        if wanted.imatrix is not None or wanted.calibration is None:
            return wanted.imatrix
        if "completion" not in base.traits.capabilities:
            self.workshop.reporter.note("no importance matrix: it is no model that continues text")
            return None
        maker = ImatrixMaker(self.workshop, wanted.matrix, self.threads, self.gpu_layers, self._replacing(wanted))
        made = maker.compute(base, wanted.calibration, wanted.place)
        record.steps.append(step_of("imatrix", wanted.calibration.name, made))
        return made.file

    def _quantized(
        self, wanted: Wanted, base: GgufInput, matrix: Path | None, record: RunRecord
    ) -> list[tuple[str, Made]]:
        quantizer = Quantizer(self.workshop, wanted.quantize, matrix, self.threads, self._replacing(wanted))
        quants = [quant for quant in wanted.quants if quant != base.traits.quant]  # that one is there
        if not quants:
            return []
        made = list(zip(quants, quantizer.quantize(base, quants, wanted.place), strict=True))
        record.steps += [step_of("quantize", quant, one) for quant, one in made]
        return made

    def _measured(
        self, wanted: Wanted, base: GgufInput, made: Sequence[tuple[str, Made]], record: RunRecord
    ) -> list[Evaluation]:
        if wanted.evaluation is None:
            return []
        name = wanted.place.model
        first = Subject(f"{name}:{base.traits.quant}", base.traits.quant, base)
        others = [
            Subject(f"{name}:{quant}", quant, gguf_input(one.files, self.workshop.reporter)) for quant, one in made
        ]
        evaluator = Evaluator(
            self.workshop, wanted.evaluation, first, wanted.context_tokens, wanted.chunks, self.threads,
            self.gpu_layers, self.with_speed,
        )  # fmt: skip
        entries = []
        for subject in (first, *others):
            state = UNCHANGED if evaluator.is_known(subject) else MADE
            began = time.monotonic()
            entries += evaluator.evaluate([subject])
            took_s = round(time.monotonic() - began, 2) if state == MADE else 0.0
            record.steps.append(StepRecord(step="evaluate", what=subject.quant, state=state, took_s=took_s))
        return entries


def _require_no_need(quants: Sequence[str]) -> None:
    needing = [quant for quant in quants if needs_imatrix(quant)]
    if needing:
        why = "it keeps so few bits that it needs an importance matrix"
        raise ImatrixNeededError("cannot quantize to", needing[0], why, hint="--imatrix auto computes one")


def _made_files(place: Place) -> list[Path]:
    return sorted(place.directory.glob("*.gguf")) if place.directory.is_dir() else []
