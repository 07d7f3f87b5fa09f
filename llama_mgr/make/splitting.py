"""Splitting a GGUF into shards, and joining shards to one, by the llama-gguf-split of a build."""

import re
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import BadInputError, IntegrityError, SameFileError, SplitFailedError
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
)
from llama_mgr.make.provenance import begun, step_digest
from llama_mgr.make.room import require_room, require_was_not_full, written_bytes
from llama_mgr.make.tool import ToolRun, require_success, run_tool
from llama_mgr.make.workshop import Workshop
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.quants import SUFFIX, shard_of
from llama_mgr.models.traits import merged, traits_of

_MAX_SIZE = re.compile(r"[1-9]\d*[MG]")


@dataclass
class Splitter:
    """Splits and merges with one build."""

    workshop: Workshop
    replacing: Replacing = KEEP

    def split(self, model: GgufInput, place: Place, max_size: str = "", max_tensors: int = 0) -> Made:
        """Have `model` in shards of at most `max_size` (`2G`, powers of 1000) or `max_tensors` tensors each.

        On disk afterwards: the shards with side-cars; the model stays. After an error or a kill: nothing new.

        Raises:
            BadInputError: it is split already, or neither limit, or a malformed one, is given.
            OutputExistsError, NoSpaceError, SplitFailedError, IntegrityError: as for quants.
        """
        if len(model.files) > 1:
            raise BadInputError("cannot split", model.file.name, "it is split already", hint="llama-mgr merge joins it")
        if bool(max_size) == bool(max_tensors):
            raise BadInputError("cannot split", model.file.name, "--max-size or --max-tensors is needed, and not both")
        if max_size and not _MAX_SIZE.fullmatch(max_size):
            raise BadInputError("cannot use --max-size", max_size, "the form is a whole number with M or G, such as 2G")
        limit = ["--split-max-size", max_size] if max_size else ["--split-max-tensors", str(max_tensors)]
        return self._made(
            "split", model, place, ["--split", *limit], {"max_size": max_size, "max_tensors": max_tensors}
        )

    def merge(self, model: GgufInput, place: Place) -> Made:
        """Have the shards of `model` as one file at `place`; on disk and raised: as `split`."""
        if len(model.files) == 1:
            raise BadInputError("cannot merge", model.file.name, "it is one file already")
        return self._made("merge", model, place, ["--merge"], {})

    def _made(self, step: str, model: GgufInput, place: Place, words: list[str], options: dict[str, object]) -> Made:
        workshop, size_bytes = self.workshop, sum(one.size_bytes for one in model.inputs)
        digest = step_digest(step, workshop.origin, options, model.inputs)
        found = found_made(place, digest)
        if found is not None:
            return found
        require_room(step, model.file.name, place.directory, size_bytes, force=self.replacing.force)
        with held_output(workshop.home, place, digest, workshop.reporter), draft(workshop.home, place) as directory:
            run = self._run(model, words, directory)
            if run.status != 0:
                require_was_not_full(step, model.file.name, place.directory, size_bytes, written_bytes(directory))
                require_success(run, f"cannot {step}", model.file.name, SplitFailedError)
            files = sorted(directory.glob(f"made*{SUFFIX}"))
            _require_same(model, files)
            names = _names(model, place, files)
            _require_other(model, place, names)
            provenance = begun(
                step, digest, workshop.origin, command=[Path(run.argv[0]).name, *run.argv[1:]],
                inputs=list(model.inputs), options=options, parent=model.parent, took_s=round(run.took_s, 2),
            )  # fmt: skip
            staged = list(zip(files, names, strict=True))
            return publish_made(workshop.home, place, staged, provenance, workshop.reporter, self.replacing)

    def _run(self, model: GgufInput, words: list[str], directory: Path) -> ToolRun:
        target = "made" if "--split" in words else f"made{SUFFIX}"
        argv: list[str | Path] = [self.workshop.program("gguf-split"), *words, model.linked_below(directory), target]
        return run_tool(self.workshop.home, argv, environ=self.workshop.environ, cwd=directory)


def _require_other(model: GgufInput, place: Place, names: list[str]) -> None:
    """Refuse to write over what is read."""
    for name in names:
        target = place.directory / name
        if any(target.exists() and target.samefile(file) for file in model.files):
            raise SameFileError("cannot write over the input", target, "it is one of the files that are read")


def _names(model: GgufInput, place: Place, files: list[Path]) -> list[str]:
    old = shard_of(model.file.name)
    stem = place.file_name.removesuffix(SUFFIX) or (old[0] if old else model.file.name.removesuffix(SUFFIX))
    shards = [shard_of(file.name) for file in files]
    return [f"{stem}-{one[1]:05d}-of-{one[2]:05d}{SUFFIX}" if one else f"{stem}{SUFFIX}" for one in shards]


def _require_same(model: GgufInput, files: list[Path]) -> None:
    """Refuse what has not the tensors of `model`, all of them, in the same types."""
    if not files:
        raise IntegrityError("cannot find what llama-gguf-split made of", model.file.name)
    parts = [traits_of(read_gguf(file), file.name) for file in files]
    found = merged(parts) if len(parts) > 1 else parts[0]
    if found.types != model.traits.types:
        why = "its tensors are not those of the input"
        raise IntegrityError("cannot use what llama-gguf-split made of", model.file.name, why)
