"""Importance matrices: computed over a text in segments, so that a long computation goes on after a kill.

Every run computes the same segments one after the other, each with the one before as its input, whether it was
interrupted or not: the same model, text and build give the same file, byte for byte.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_mgr.errors import BadGgufError, BadInputError, ImatrixFailedError, IntegrityError, SameFileError
from llama_mgr.locks import held_lock
from llama_mgr.make.gguf_input import GgufInput
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
from llama_mgr.make.provenance import Provenance, begun, step_digest
from llama_mgr.make.room import require_room, require_was_not_full, written_bytes
from llama_mgr.make.texts import Text
from llama_mgr.make.tool import ToolRun, require_success, run_tool
from llama_mgr.make.workshop import Workshop
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.traits import traits_of
from llama_mgr.report import Progress
from llama_mgr.store import storage_errors, sync_dir, sync_file
from llama_mgr.text import printable

SEGMENT_CHUNKS = 32
_SUFFIX = ".imatrix.gguf"
_CHUNK = re.compile(r"\[(\d+)\]")
_TOO_FEW = ("not be enough tokens left", "not enough tokens left", "you need at least")
_BYTES_PER_PARAMETER = 1 / 64  # a sum for each column of each matrix


class ImatrixOptions(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How an importance matrix is computed."""

    context_tokens: int = 512
    """Tokens of one chunk."""
    chunks: int = 0
    """At most so many; 0 is the whole text."""
    process_output: bool = False
    """Also for the output matrix."""
    parse_special: bool = False
    """Whether `<|im_start|>` and the like in the text are special tokens."""


@dataclass
class ImatrixMaker:
    """Computes importance matrices with the llama-imatrix of one build."""

    workshop: Workshop
    options: ImatrixOptions
    threads: int = 0
    gpu_layers: int | None = None
    replacing: Replacing = KEEP

    def require_possible(self, model: GgufInput) -> None:
        """Refuse what cannot work.

        Raises:
            UnknownToolError: the build has no llama-imatrix.
            BadInputError: the model is no text model, or a number is out of range.
        """
        self.workshop.program("imatrix")
        if model.traits.kind != "model" or "completion" not in model.traits.capabilities:
            raise BadInputError(
                "cannot compute an importance matrix of", model.file.name, "it is no model that continues text",
                hint="quantize embedding models without one",
            )  # fmt: skip
        if self.workshop.capabilities.imatrix_format != "gguf":
            raise BadInputError(
                "cannot use the instance", self.workshop.instance,
                f"llama-imatrix of {self.workshop.build.plan.version} does not write GGUF",
                hint="choose a version from b6100 on with -i NAME",
            )  # fmt: skip

    def digest(self, model: GgufInput, text: Text) -> str:
        """Return what tells this matrix from others."""
        options = {**msgspec.to_builtins(self.options), "n_gpu_layers": self.gpu_layers}
        nameless = [msgspec.structs.replace(one, name=f"{n:05d}") for n, one in enumerate(model.inputs)]
        return step_digest("imatrix", self.workshop.origin, options, nameless, text.sha256, text.name)

    def compute(self, model: GgufInput, text: Text, place: Place) -> Made:
        """Have the matrix of `model` over `text` at `place`; what was computed before in the same way stays.

        On disk afterwards: the file with its side-car. After an error or a kill: the finished segments below
        `home.cache_dir`, from which the next call goes on.

        Raises:
            BadInputError: the text is too short, or as `require_possible`.
            OutputExistsError: a file of another making has the name.
            ImatrixFailedError: llama-imatrix failed.
            NoSpaceError: the disk has no room.
        """
        self.require_possible(model)
        digest = self.digest(model, text)
        found = found_made(place, digest)
        if found is not None:
            return found
        name = place.file_name or f"{place.stem}{_SUFFIX}"
        self._require_name(model, place.directory / name, digest)
        needed_bytes = int(model.traits.parameters * _BYTES_PER_PARAMETER)
        require_room(
            "compute the importance matrix of",
            model.file.name,
            place.directory,
            needed_bytes,
            force=self.replacing.force,
        )
        home = self.workshop.home
        with (
            held_output(home, place, digest, self.workshop.reporter),
            held_lock(home, f"imatrix-{digest[:16]}", f"compute the matrix of {place.model}", self.workshop.reporter),
        ):
            work = _Work(self, model, text, home.cache_dir / "imatrix" / digest[:32])
            last = work.done()
            with draft(home, place) as directory, storage_errors("cannot write", place.directory / name):
                shutil.copyfile(last, directory / name)
                require_imatrix(directory / name)
                made = publish_made(
                    home, place, [(directory / name, name)], self._provenance(model, text, digest, work),
                    self.workshop.reporter, self.replacing,
                )  # fmt: skip
            shutil.rmtree(work.directory, ignore_errors=True)
        return made

    def _require_name(self, model: GgufInput, target: Path, digest: str) -> None:
        if any(target.exists() and target.samefile(file) for file in model.files):
            raise SameFileError("cannot write over the model", target, "the matrix needs another name")
        require_free_name(target, self.workshop.reporter, self.replacing, digest)

    def statistics(self, matrix: Path) -> list[str]:
        """Return what llama-imatrix says of each matrix in the file.

        Raises:
            BadGgufError: it is no importance matrix.
            BadInputError: this build has no `--show-statistics`.
        """
        require_imatrix(matrix)
        lines: list[str] = []
        argv: list[str | Path] = [self.workshop.program("imatrix"), "--in-file", matrix, "--show-statistics"]
        argv += ["-m", matrix]  # a model is asked for, and not read
        run = run_tool(self.workshop.home, argv, environ=self.workshop.environ, cwd=matrix.parent, on_line=lines.append)
        require_success(run, "cannot show the statistics of", matrix, ImatrixFailedError)
        return [printable(line.rstrip(), 400) for line in lines]

    def _provenance(self, model: GgufInput, text: Text, digest: str, work: "_Work") -> Provenance:
        options = {**msgspec.to_builtins(self.options), "text": text.name}
        return begun(
            "imatrix", digest, self.workshop.origin, command=work.command, inputs=list(model.inputs), options=options,
            parent=model.parent, text_sha256=text.sha256, took_s=round(work.took_s, 2),
            made_for=self.replacing.made_for,
        )  # fmt: skip


class _Work:
    """The segments of one matrix, in a directory that stays until the matrix is there."""

    def __init__(self, maker: ImatrixMaker, model: GgufInput, text: Text, directory: Path) -> None:
        self.maker, self.model, self.text, self.directory = maker, model, text, directory
        self.command: list[str] = []
        self.took_s = 0.0
        self._is_over = False

    def done(self) -> Path:
        """Compute what is missing; return the last segment, which holds all before it."""
        self._prepare()
        total = self.maker.options.chunks or None
        reporter = self.maker.workshop.reporter
        title = f"imatrix of {printable(self.model.file.name)}"
        with reporter.progress(title, total, "steps") as bar:
            number = self._finished()
            if number:
                reporter.note(f"going on after {number * SEGMENT_CHUNKS} chunks that were computed before")
            while self._is_wanted(number) and self._computed(number, bar, total):
                number += 1
        return self._segment(number - 1)

    def _prepare(self) -> None:
        with storage_errors("cannot write", self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.directory / self.text.name).write_bytes(self.text.content)
            shutil.rmtree(self.directory / "input", ignore_errors=True)
        self.model.linked_below(self.directory)

    def _segment(self, number: int) -> Path:
        return self.directory / f"segment-{number:05d}.gguf"

    def _finished(self) -> int:
        """Return how many segments are there, whole."""
        number = 0
        while self._segment(number).is_file():
            number += 1
        return number

    def _is_wanted(self, number: int) -> bool:
        chunks = self.maker.options.chunks
        return not self._is_over and (not chunks or number * SEGMENT_CHUNKS < chunks)

    def _computed(self, number: int, bar: Progress, total: int | None) -> bool:
        """Compute segment `number`; False when the text has no chunk for it."""
        chunks = SEGMENT_CHUNKS
        if total is not None:
            chunks = min(chunks, total - number * SEGMENT_CHUNKS)
        part = self.directory / "part.gguf"
        part.unlink(missing_ok=True)
        seen: list[int] = [0]
        run = self._run(number, chunks, part.name, _heard(bar, number, total, seen))
        self.took_s += run.took_s
        if run.status != 0 or not part.is_file():
            return self._ended(run, number)
        try:
            require_imatrix(part)
        except BadGgufError:
            self._require_room_was_there()  # it ends well on a full disk, too
            raise
        with storage_errors("cannot finish", part):
            sync_file(part)
            part.rename(self._segment(number))
            sync_dir(self.directory)
        self._is_over = 0 < seen[0] < chunks  # where they were counted; else the next segment finds nothing to do
        return True

    def _ended(self, run: ToolRun, number: int) -> bool:
        if number and run.has_said(*_TOO_FEW):
            run.log_file.unlink(missing_ok=True)
            return False
        if run.has_said(*_TOO_FEW):
            run.log_file.unlink(missing_ok=True)
            tokens = 2 * self.maker.options.context_tokens
            raise BadInputError(
                "cannot compute an importance matrix over", self.text.name,
                f"it is too short: two chunks, {tokens} tokens, are the least", tail=list(run.tail),
                hint="use a longer text, or a smaller --ctx-size",
            )  # fmt: skip
        self._require_room_was_there()
        require_success(run, "cannot compute the importance matrix of", self.model.file.name, ImatrixFailedError)
        raise IntegrityError("cannot find what llama-imatrix made of", self.model.file.name)

    def _require_room_was_there(self) -> None:
        needed_bytes = int(self.model.traits.parameters * _BYTES_PER_PARAMETER)
        written = written_bytes(self.directory)
        require_was_not_full("compute the matrix of", self.model.file.name, self.directory, needed_bytes, written)

    def _run(self, number: int, chunks: int, output: str, on_line: Callable[[str], None]) -> ToolRun:
        maker, options = self.maker, self.maker.options
        context = str(options.context_tokens)
        words = ["-m", f"input/{self.model.file.name}", "-f", self.text.name, "-o", output]
        words += ["-c", context, "-b", context, "-ub", context, "--chunks", str(chunks)]
        words += (
            ["--chunk", str(number * SEGMENT_CHUNKS), "--in-file", self._segment(number - 1).name] if number else []
        )
        words += ["--process-output"] if options.process_output else []
        words += ["--parse-special"] if options.parse_special else []
        words += maker.workshop.device_words(maker.threads, maker.gpu_layers)
        self.command = self.command or [maker.workshop.program("imatrix").name, *words]
        return run_tool(
            maker.workshop.home, [maker.workshop.program("imatrix"), *words], environ=maker.workshop.environ,
            cwd=self.directory, on_line=on_line, line_ends=b"\r,",
        )  # fmt: skip


def _heard(bar: Progress, number: int, total: int | None, seen: list[int]) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        found = _CHUNK.match(line.strip())
        if found:
            # Chunks count from the beginning of the text in some versions, and from that of the segment in others.
            counted = int(found[1])
            seen[0] += 1
            bar.update(max(counted, number * SEGMENT_CHUNKS + seen[0]), total, "chunks")

    return on_line


def require_imatrix(file: Path) -> None:
    """Refuse what is no importance matrix.

    Raises:
        BadGgufError: it is none, or not whole.
    """
    traits = traits_of(read_gguf(file), file.name)
    if traits.kind != "imatrix":
        raise BadGgufError("cannot use as an importance matrix", file, f"it is a GGUF of the kind '{traits.kind}'")
