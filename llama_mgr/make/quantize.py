"""Quantization: one model to several types, each made in a draft, checked, and put in place whole."""

import os
import re
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from llama_mgr.build.host import host_memory
from llama_mgr.errors import BadInputError, ImatrixNeededError, IntegrityError, QuantizeFailedError, SameFileError
from llama_mgr.make.gguf_input import GgufInput
from llama_mgr.make.inputs import input_of
from llama_mgr.make.output import (
    KEEP,
    Made,
    Place,
    Replacing,
    draft,
    found_made,
    held_output,
    publish_made,
    require_free_name,
)
from llama_mgr.make.parallel import done_together
from llama_mgr.make.provenance import Provenance, begun, header_keys, step_digest
from llama_mgr.make.quant_types import COPY, bits_of, needs_imatrix
from llama_mgr.make.quantize_options import QuantizeOptions
from llama_mgr.make.room import require_room, require_was_not_full, written_bytes
from llama_mgr.make.staleness import quantizer_code
from llama_mgr.make.tool import ToolRun, require_success, run_tool
from llama_mgr.make.workshop import Workshop
from llama_mgr.models.gguf import GgufHeader, read_gguf
from llama_mgr.models.quants import SUFFIX, stem_of
from llama_mgr.models.traits import merged, traits_of
from llama_mgr.process import Argument, Children
from llama_mgr.report import Progress
from llama_mgr.text import printable

_TENSOR = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_WILL_NEED = "will require an imatrix"
_FLOATS = frozenset({"F32", "F16", "BF16"})
_DRAFT = "out"
_MEMORY_SHARE = 0.5
_WORK_BYTES_PER_WEIGHT = 8  # a tensor as F32, and its quantized form, while it is worked on


@dataclass
class Quantizer:
    """Quantizes with the llama-quantize of one build.

    `threads` is how many each program uses (0: as many as there are cores), `force` goes on where the disk seems to be
    too small and replaces files of the same name.
    """

    workshop: Workshop
    options: QuantizeOptions = field(default_factory=QuantizeOptions)
    imatrix: Path | None = None
    threads: int = 0
    replacing: Replacing = KEEP

    def require_possible(self, source: GgufInput, types: Sequence[str]) -> None:
        """Refuse what llama-quantize would refuse after a while, or does not know.

        Raises:
            BadInputError: this build lacks an option, an option is malformed, or the model is quantized already.
            UnknownToolError: the build has no llama-quantize.
        """
        self.workshop.program("quantize")
        flags = self.workshop.capabilities.quantize_flags
        for word in self.options.argv():
            if word.startswith("--"):
                self.workshop.require_flag("llama-quantize", flags, word)
        self.options.require_well_formed()
        quantized = sum(share.weights for name, share in source.traits.types.items() if name not in _FLOATS)
        is_quantized = quantized * 2 > source.traits.parameters
        if is_quantized and not self.options.allow_requantize and set(types) != {COPY}:
            raise BadInputError(
                "cannot quantize", source.file.name, f"it is {printable(source.traits.quant)} already, and loses twice",
                hint="quantize the F16 or BF16 it was made from; --allow-requantize does it all the same",
            )  # fmt: skip

    def predicted(self, source: GgufInput, quant: str) -> int:
        """Return how many bytes the result will have, as this build calculates it, or else about that.

        Raises:
            ImatrixNeededError: the type needs an importance matrix, and there is none.
        """
        flags = self.workshop.capabilities.quantize_flags
        if not any("--dry-run" in flag.spellings for flag in flags):
            if needs_imatrix(quant) and self.imatrix is None:
                raise self._imatrix_needed(source, quant)
            return _estimated(source, self.workshop, quant)
        said: list[str] = []
        argv: list[Argument] = [self.workshop.program("quantize"), "--dry-run", *self._words(), source.file, quant]
        run = run_tool(
            self.workshop.home, argv, environ=self.workshop.environ, cwd=source.file.parent, on_line=said.append
        )
        if run.status != 0:
            run.log_file.unlink(missing_ok=True)  # the real run says it better
            return _estimated(source, self.workshop, quant)
        if self.imatrix is None and any(_WILL_NEED in line for line in said):
            raise self._imatrix_needed(source, quant)
        size = next((found for line in said if (found := _SIZE.search(line))), None)
        return int(float(size[1]) * 1024**2) if size else _estimated(source, self.workshop, quant)

    def quantize(self, source: GgufInput, types: Sequence[str], place: Place) -> list[Made]:
        """Have `source` in all `types` at `place`; what was made before from the same inputs in the same way stays.

        On disk afterwards: the files with side-cars. After an error or a kill: each file is there whole, or as before.

        Raises:
            OutputExistsError: a file of another making has one of the names.
            SameFileError: the output is the input.
            NoSpaceError: the disk has no room, or no longer.
            QuantizeFailedError: llama-quantize failed.
            IntegrityError: it made something else than was asked for.
            ImatrixNeededError, BadInputError: as `predicted` and `require_possible`.
        """
        self.require_possible(source, types)
        jobs = [self._job(source, quant, place) for quant in types]
        missing = [job for job in jobs if job.found is None]
        needed_bytes = 0
        for job in missing:
            job.require_name()
            job.needed_bytes = self.predicted(source, job.quant)
            needed_bytes += job.needed_bytes
        if missing:
            require_room("quantize", source.file.name, place.directory, needed_bytes, force=self.replacing.force)
        title = f"quantize {printable(place.stem)}"
        total = source.tensor_count * len(missing)
        with self.workshop.reporter.progress(title, total, "steps") as bar:
            count = _Count(bar, total)
            works = [job.work(count) for job in missing]
            made = dict(zip([job.quant for job in missing], done_together(works, self._at_once(source)), strict=True))
        return [made.get(job.quant) or job.found or _never(job.quant) for job in jobs]

    def provenance(self, source: GgufInput, quant: str) -> Provenance:
        """Return how a result will have been made."""
        options: dict[str, Any] = {"type": quant, **msgspec.to_builtins(self.options)}
        matrix = input_of(self.imatrix, self.workshop.reporter) if self.imatrix else None
        more = [matrix.sha256] if matrix else []
        inputs = [*source.inputs, *([matrix] if matrix else [])]
        made = begun(
            "quantize", "", self.workshop.origin, command=[], inputs=inputs, options=options, parent=source.parent,
            imatrix_sha256=matrix.sha256 if matrix else "", code={"quantizer": self._code},
            made_for=self.replacing.made_for,
        )  # fmt: skip
        # The header says where it came from, and is part of what is made; names of files are not.
        nameless = [msgspec.structs.replace(one, name=f"{n:05d}") for n, one in enumerate(source.inputs)]
        more += [f"{key}={value}" for key, value in header_keys(made).items()]
        digest = step_digest("quantize", self.workshop.origin, options, nameless, *more)
        return msgspec.structs.replace(made, digest=digest)

    @cached_property
    def _code(self) -> dict[str, str]:
        workshop = self.workshop
        return quantizer_code(workshop.home, workshop.build, workshop.user_environ, workshop.reporter)

    def _job(self, source: GgufInput, quant: str, place: Place) -> "_Job":
        provenance = self.provenance(source, quant)
        return _Job(self, source, quant, place, provenance, found_made(place, provenance.digest))

    def _at_once(self, source: GgufInput) -> int:
        """Return how many programs may run together: each keeps its largest tensor in memory twice."""
        header = [tensor.weights for file in source.files for tensor in read_gguf(file).tensors]
        each_bytes = max(header, default=1) * _WORK_BYTES_PER_WEIGHT
        free = int(host_memory(self.workshop.user_environ)[1] * _MEMORY_SHARE)
        return max(1, min(os.cpu_count() or 1, free // each_bytes))

    def _words(self) -> list[str]:
        # The name goes into the header of the file, and a path there would tell about this machine.
        matrix = ["--imatrix", str(self.imatrix)] if self.imatrix else []
        return [*self.options.argv(), *matrix]

    def _imatrix_needed(self, source: GgufInput, quant: str) -> ImatrixNeededError:
        return ImatrixNeededError(
            "cannot quantize", source.file.name, f"{quant} keeps so few bits that it needs an importance matrix",
            hint=_imatrix_hint(source),
        )  # fmt: skip


@dataclass
class _Count:
    """How many tensors all jobs have done."""

    bar: Progress
    total: int
    done: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def heard(self, quant: str) -> Callable[[str], None]:
        """Return what hears the lines of one job."""

        def on_line(line: str) -> None:
            found = _TENSOR.match(line)
            if found:
                with self.guard:
                    self.done += 1
                    self.bar.update(self.done, self.total, f"{quant} {found[3]}")

        return on_line


@dataclass
class _Job:
    """One type."""

    quantizer: Quantizer
    source: GgufInput
    quant: str
    place: Place
    provenance: Provenance
    found: Made | None
    needed_bytes: int = 0

    @property
    def names(self) -> list[str]:
        """What the files will be called."""
        quant = self.source.traits.quant if self.quant == COPY else self.quant
        file = self.source.file
        own = stem_of(file.name) if file.suffix == SUFFIX else self.place.stem  # blobs of Ollama have no suffix
        stem = (self.place.file_name or f"{own}-{quant}{SUFFIX}").removesuffix(SUFFIX)
        if not (self.quantizer.options.keep_split and len(self.source.files) > 1):
            return [f"{stem}{SUFFIX}"]
        count = len(self.source.files)
        return [f"{stem}-{number:05d}-of-{count:05d}{SUFFIX}" for number in range(1, count + 1)]

    def require_name(self) -> None:
        """Refuse names that are taken."""
        for name in self.names:
            target = self.place.directory / name
            if any(target.exists() and target.samefile(file) for file in self.source.files):
                raise SameFileError(
                    "cannot quantize", self.source.file, f"the output {printable(target)} is the same file",
                    hint="choose another --output",
                )  # fmt: skip
            quantizer = self.quantizer
            require_free_name(target, quantizer.workshop.reporter, quantizer.replacing, self.provenance.digest)

    def work(self, count: _Count) -> Callable[[Children], Made]:
        """Return what does it."""

        def work(children: Children) -> Made:
            workshop = self.quantizer.workshop
            digest = self.provenance.digest
            with held_output(workshop.home, self.place, digest, workshop.reporter, lambda: children.is_over):
                found = found_made(self.place, self.provenance.digest)  # another command may have done it
                return found or self._made(count, children)

        return work

    def _made(self, count: _Count, children: Children) -> Made:
        workshop = self.quantizer.workshop
        with draft(workshop.home, self.place) as directory:
            run = self._run(directory, count, children)
            if run.status != 0:
                self._fail(run, directory)
            files = sorted(file for file in (directory / _DRAFT).glob(f"*{SUFFIX}") if not file.is_symlink())
            self._require_right(files)
            took = msgspec.structs.replace(self.provenance, took_s=round(run.took_s, 2), command=_shown(run))
            staged, replacing = list(zip(files, self.names, strict=True)), self.quantizer.replacing
            return publish_made(workshop.home, self.place, staged, took, workshop.reporter, replacing)

    def _run(self, directory: Path, count: _Count, children: Children) -> ToolRun:
        quantizer, words = self.quantizer, self.quantizer.options.argv()
        model = self.source.linked_below(directory)
        if quantizer.imatrix is not None:
            matrix = f"imatrix{quantizer.imatrix.suffix}"  # goes into the header, which is to be the same always
            (directory / matrix).symlink_to(quantizer.imatrix.absolute())
            words += ["--imatrix", matrix]
        (directory / _DRAFT).mkdir()
        for key, value in header_keys(self.provenance).items():
            words += ["--override-kv", f"{key}=str:{value}"]
        argv: list[Argument] = [
            quantizer.workshop.program("quantize"), *words, model, f"{_DRAFT}/model{SUFFIX}",
            self.quant, str(quantizer.threads or os.cpu_count() or 1),
        ]  # fmt: skip
        return run_tool(
            quantizer.workshop.home, argv, environ=quantizer.workshop.environ, cwd=directory,
            on_line=count.heard(self.quant), children=children,
        )  # fmt: skip

    def _fail(self, run: ToolRun, directory: Path) -> None:
        name, place = self.source.file.name, self.place.directory
        require_was_not_full("quantize", name, place, self.needed_bytes, written_bytes(directory))
        hint = "--allow-requantize does it all the same" if run.has_said("requantizing from") else None
        if run.has_said("requires an importance matrix", "requires an imatrix", "Missing importance matrix"):
            hint = _imatrix_hint(self.source)
        require_success(run, f"cannot quantize to {self.quant}", name, QuantizeFailedError, hint)

    def _require_right(self, files: Sequence[Path]) -> None:
        """Read the headers of what was made: all tensors must be inside, and as many as before."""
        if len(files) != len(self.names):
            raise IntegrityError("cannot use what llama-quantize made", self.names[0], f"it made {len(files)} files")
        parts = [traits_of(read_gguf(file), name) for file, name in zip(files, self.names, strict=True)]
        traits = merged(parts) if len(parts) > 1 else parts[0]
        wanted = self.source.tensor_count
        found = sum(share.tensors for share in traits.types.values())
        self._require_type(read_gguf(files[0]))
        if found != wanted and not self.quantizer.options.prune_layers:
            why = f"it has {found} tensors, and the input {wanted}"
            raise IntegrityError("cannot use what llama-quantize made", self.names[0], why)

    def _require_type(self, header: GgufHeader) -> None:
        """Refuse another file type than the one that was asked for; what its tensors have depends on their shapes."""
        types = self.quantizer.workshop.capabilities.quant_types
        number = next((one.number for one in types if one.name == self.quant), None)
        if number is not None and header.metadata.get("general.file_type") != number:
            why = f"its file type is {header.metadata.get('general.file_type')}, and {self.quant} is {number}"
            raise IntegrityError("cannot use what llama-quantize made", self.names[0], why)


def _shown(run: ToolRun) -> list[str]:
    """Return the command as it ran, from the program's name on."""
    start = next(number for number, word in enumerate(run.argv) if word.startswith("/"))
    return [Path(run.argv[start]).name, *run.argv[start + 1 :]]


def _imatrix_hint(source: GgufInput) -> str:
    return f"make one: llama-mgr imatrix {shlex.quote(str(source.file))}; then add --imatrix FILE"


def _estimated(source: GgufInput, workshop: Workshop, quant: str) -> int:
    """Return about how many bytes a result has; in small models, embeddings weigh, and keep more bits than the type."""
    kind = next((one for one in workshop.capabilities.quant_types if one.name == quant), None)
    bits = (bits_of(kind) if kind else None) or (source.traits.bits_per_weight if quant == COPY else 8.5)
    return int(source.traits.parameters * min(bits * 1.25, source.traits.bits_per_weight) / 8)


def _never(quant: str) -> Made:
    raise IntegrityError("cannot find what was made for", quant)
