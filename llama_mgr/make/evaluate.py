"""Measuring: perplexity, divergence from a base, speed and memory of models; what was measured before is not again."""

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from llama_mgr.errors import BadInputError, EvaluateFailedError, NoSpaceError
from llama_mgr.make.gguf_input import GgufInput
from llama_mgr.make.ledger import Evaluation, Ledger, model_sha256
from llama_mgr.make.logits import Logits
from llama_mgr.make.measurement import Speed, Value, divergence, final_perplexity, speed_of
from llama_mgr.make.texts import Text
from llama_mgr.make.tool import ToolRun, require_success, run_tool
from llama_mgr.make.workshop import Workshop
from llama_mgr.report import Progress
from llama_mgr.store import now_at, storage_errors, sync_file
from llama_mgr.text import printable

PROMPT_TOKENS, GENERATED_TOKENS, REPETITIONS = 512, 64, 3
_CHUNK = re.compile(r"^\s*\[?(\d+)\]?\s*[\d.]+")
_TOO_SHORT = "you need at least"
_OTHER_VOCABULARY = "inconsistent vocabulary"
_TRIES = 3

_SPEED = ("threads", "gpu_layers", "prompt_tokens_per_s", "generation_tokens_per_s", "peak_bytes", "devices")

Found = TypeVar("Found")


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and what people call it."""

    name: str
    quant: str
    model: GgufInput

    @property
    def sha256(self) -> str:
        """What tells its content from others."""
        return model_sha256([one.sha256 for one in self.model.inputs])

    @property
    def continues_text(self) -> bool:
        """Whether it has a perplexity; models for embeddings have none."""
        return "completion" in self.model.traits.capabilities


@dataclass
class Evaluator:
    """Measures with the programs of one build.

    `chunks` limits how much of the text is used (0: all of it), `with_speed` runs llama-bench, too, and `again`
    measures what the ledger has already.
    """

    workshop: Workshop
    text: Text
    base: Subject | None = None
    context_tokens: int = 512
    chunks: int = 0
    threads: int = 0
    gpu_layers: int | None = None
    with_speed: bool = True
    again: bool = False

    def evaluate(self, subjects: Sequence[Subject]) -> list[Evaluation]:
        """Measure `subjects` one after the other, and keep in the ledger what was measured of each.

        On disk afterwards: an entry of the ledger for each. After an error or a kill: those of the ones before.

        Raises:
            BadInputError: the text is too short, or a vocabulary is not the base's.
            UnknownToolError: the build has no llama-perplexity or llama-bench.
            EvaluateFailedError: one of them failed.
            NoSpaceError: the base's distributions do not fit on the disk.
        """
        for subject in subjects:
            self._require_comparable(subject)
        return [self._evaluated(subject) for subject in subjects]

    def _evaluated(self, subject: Subject) -> Evaluation:
        ledger = Ledger(self.workshop.home, self.workshop.reporter)
        blank = self._blank(subject)
        entry = ledger.find(blank) or blank
        if self.again:
            entry = _with_speed_of(entry, blank)
        if subject.continues_text and (self.again or entry.perplexity is None):
            entry = self._with_quality(subject, entry)
            ledger.write(entry)
        if self.with_speed and (self.again or not self._has_this_speed(entry)):
            entry = self._with_speed(subject, entry)
            ledger.write(entry)
        # In a table, a speed with other threads would stand beside those with these.
        return entry if self._has_this_speed(entry) else _with_speed_of(blank, entry)

    def is_known(self, subject: Subject) -> bool:
        """Tell whether the ledger has all that would be measured of `subject`."""
        known = Ledger(self.workshop.home, self.workshop.reporter).find(self._blank(subject))
        has_quality = known is not None and (known.perplexity is not None or not subject.continues_text)
        return known is not None and has_quality and (not self.with_speed or self._has_this_speed(known))

    def _has_this_speed(self, entry: Evaluation) -> bool:
        is_same = (entry.threads, entry.gpu_layers) == (self.threads, self.gpu_layers)
        return is_same and entry.prompt_tokens_per_s is not None

    def _blank(self, subject: Subject) -> Evaluation:
        traits, plan = subject.model.traits, self.workshop.build
        return Evaluation(
            model_sha256=subject.sha256, model=subject.name, quant=subject.quant, architecture=traits.architecture,
            size_bytes=sum(one.size_bytes for one in subject.model.inputs), bits_per_weight=traits.bits_per_weight,
            build_id=plan.build_id, build_digest=plan.digest, text_sha256=self.text.sha256, text=self.text.name,
            context_tokens=self.context_tokens, chunks=self.chunks,
            base_sha256=self.base.sha256 if self.base and subject.continues_text else "",
            base=self.base.name if self.base and subject.continues_text else "", measured_at=now_at(),
        )  # fmt: skip

    def _require_comparable(self, subject: Subject) -> None:
        if self.base is None or not subject.continues_text:
            return
        wanted, found = self.base.model.traits.vocabulary_size, subject.model.traits.vocabulary_size
        if wanted != found:
            raise BadInputError(
                "cannot compare", subject.name, f"it has {found} tokens, and its base {self.base.name} has {wanted}",
                hint="name a base that it was made from with --base, or leave the base out",
            )  # fmt: skip

    # -- quality -------------------------------------------------------------------------------------------------------

    def _with_quality(self, subject: Subject, entry: Evaluation) -> Evaluation:
        if self.base is None:
            return self._with_perplexity(entry, self._perplexity(subject, []))
        logits = Logits(self.workshop, self.base.sha256, self.text, self.context_tokens, self.chunks)
        with logits.held(self.base.model.traits.vocabulary_size or 0) as file:
            if file.exists() and not Logits.is_whole(file):
                file.unlink()
            if not file.exists():
                value = self._base_perplexity(file)
                if subject.sha256 == self.base.sha256:
                    return self._as_base(self._with_perplexity(entry, value))
            return self._with_divergence(subject, entry, file)

    def _base_perplexity(self, file: Path) -> Value:
        """Have the distributions of the base in `file`, whole or not at all; return its perplexity."""
        part = file.with_suffix(".part")
        if self.base is None:  # pragma: no cover - asked for only when there is one
            raise EvaluateFailedError("cannot measure without a base")
        part.unlink(missing_ok=True)
        value = self._perplexity(self.base, ["--kl-divergence-base", str(part)])
        if not Logits.is_whole(part):
            part.unlink(missing_ok=True)
            why = f"llama-perplexity wrote only a part of its distributions to {printable(file.parent)}"
            raise NoSpaceError("cannot measure", self.base.name, why, hint="make room there, or use fewer --chunks")
        with storage_errors("cannot keep", file):
            sync_file(part)
            part.rename(file)
        return value

    def _perplexity(self, subject: Subject, more: Sequence[str]) -> Value:
        def understood(lines: list[str]) -> Value | None:
            if any(_TOO_SHORT in line for line in lines):
                raise BadInputError(
                    "cannot measure over", self.text.name,
                    f"it is too short: {2 * self.context_tokens} tokens are the least",
                    hint="use a longer text, or a smaller --ctx-size",
                )  # fmt: skip
            return final_perplexity(lines)

        return self._measured(subject, [*more, "-f", self.text.name], understood)

    def _measured(
        self, subject: Subject, words: Sequence[str], understood: Callable[[list[str]], Found | None]
    ) -> Found:
        """Run llama-perplexity and return what was `understood` of its lines, of which it sometimes loses the last."""
        for _ in range(_TRIES):
            lines: list[str] = []
            run = self._run_perplexity(subject, words, lines)
            require_success(run, "cannot measure", subject.name, EvaluateFailedError)
            if any(_OTHER_VOCABULARY in line for line in lines):
                break
            found = understood(lines)
            if found is not None:
                return found
        why = "llama-perplexity does not say what it should, or numbers that are none"
        raise EvaluateFailedError("cannot measure", subject.name, why, tail=list(run.tail))

    def _with_divergence(self, subject: Subject, entry: Evaluation, file: Path) -> Evaluation:
        def understood(lines: list[str]) -> dict[str, Value] | None:
            found = divergence(lines)
            return found if {"perplexity", "kld", "same_top"} <= found.keys() else None

        found = self._measured(subject, ["--kl-divergence-base", str(file), "--kl-divergence"], understood)
        if self.base is not None and subject.sha256 == self.base.sha256:
            return self._as_base(self._with_perplexity(entry, found.get("base", found["perplexity"])))
        return msgspec.structs.replace(
            self._with_perplexity(entry, found["perplexity"]),
            kld=found["kld"].value, kld_error=found["kld"].error,
            kld_99=found["kld_99"].value if "kld_99" in found else None,
            kld_max=found["kld_max"].value if "kld_max" in found else None,
            same_top=round(found["same_top"].value, 6), same_top_error=found["same_top"].error,
            delta_p_rms=round(found["delta_p_rms"].value, 6) if "delta_p_rms" in found else None,
        )  # fmt: skip

    @staticmethod
    def _with_perplexity(entry: Evaluation, value: Value) -> Evaluation:
        facts = {"perplexity": value.value, "perplexity_error": value.error, "measured_at": now_at()}
        return msgspec.structs.replace(entry, **facts)

    @staticmethod
    def _as_base(entry: Evaluation) -> Evaluation:
        """Return what is true of the base by definition; measured, it would show how logits are rounded on the disk."""
        return msgspec.structs.replace(entry, kld=0.0, kld_error=0.0, kld_99=0.0, kld_max=0.0, same_top=1.0)

    def _run_perplexity(self, subject: Subject, words: Sequence[str], lines: list[str]) -> ToolRun:
        workshop, context = self.workshop, str(self.context_tokens)
        argv = ["-m", str(subject.model.file.absolute()), *words, "-c", context, "-b", context, "-ub", context]
        argv += ["--chunks", str(self.chunks)] if self.chunks else []
        argv += workshop.device_words(self.threads, self.gpu_layers)
        title = f"measure {printable(subject.name)}"
        with (
            storage_errors("cannot measure in", Path(tempfile.gettempdir())),
            tempfile.TemporaryDirectory() as directory,
            workshop.reporter.progress(title, None, "steps") as bar,
        ):
            (Path(directory) / self.text.name).write_bytes(self.text.content)
            return run_tool(
                workshop.home, [workshop.program("perplexity"), *argv], environ=workshop.environ, cwd=Path(directory),
                on_line=_heard(bar, lines), line_ends=b"\r,",
            )  # fmt: skip

    # -- speed ---------------------------------------------------------------------------------------------------------

    def _with_speed(self, subject: Subject, entry: Evaluation) -> Evaluation:
        workshop = self.workshop
        generated = GENERATED_TOKENS if subject.continues_text else 0
        argv = ["-m", str(subject.model.file.absolute()), "-p", str(PROMPT_TOKENS), "-n", str(generated)]
        argv += ["-r", str(REPETITIONS), "-o", "json", *workshop.device_words(self.threads, self.gpu_layers)]
        title = f"speed of {printable(subject.name)}"
        with tempfile.TemporaryFile() as output, workshop.reporter.progress(title, None, "steps"):
            run = run_tool(
                workshop.home, [workshop.program("bench"), *argv], environ=workshop.environ, cwd=Path("/"),
                stdout=output,
            )  # fmt: skip
            require_success(run, "cannot measure the speed of", subject.name, EvaluateFailedError)
            output.seek(0)
            speed = speed_of(output.read().decode("utf-8", "replace"))
        if speed is None or speed.prompt is None:
            why = "llama-bench does not say it in a form that is known"
            raise EvaluateFailedError("cannot measure the speed of", subject.name, why, tail=list(run.tail))
        return self._with_rates(entry, speed, run.peak_bytes)

    def _with_rates(self, entry: Evaluation, speed: Speed, peak_bytes: int | None) -> Evaluation:
        return msgspec.structs.replace(
            entry, threads=self.threads, gpu_layers=self.gpu_layers, prompt_tokens_per_s=speed.prompt,
            generation_tokens_per_s=speed.generation, peak_bytes=peak_bytes, devices=printable(speed.devices),
            measured_at=now_at(),
        )  # fmt: skip


def _with_speed_of(other: Evaluation, entry: Evaluation) -> Evaluation:
    return msgspec.structs.replace(entry, **{name: getattr(other, name) for name in _SPEED})


def _heard(bar: Progress, lines: list[str]) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        lines.append(line)
        chunk = _CHUNK.match(line)
        if chunk:
            bar.update(int(chunk[1]), None, "chunks")

    return on_line
