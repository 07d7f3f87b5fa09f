"""Conversion: a checkpoint to GGUF by the converter of one build, which runs apart from network, tokens and home."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from llama_mgr.errors import BadInputError, IncompleteSourceError, IntegrityError, NotFoundError, StorageError
from llama_mgr.make.checkpoint_dir import CheckpointDir, stage_checkpoint
from llama_mgr.make.convert_failure import raise_failure
from llama_mgr.make.converter_code import converter_code
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
from llama_mgr.make.provenance import InputRecord, Provenance, SourceRecord, begun, step_digest
from llama_mgr.make.python_env import Environment
from llama_mgr.make.room import require_room, require_was_not_full, written_bytes
from llama_mgr.make.sandbox import Sandbox, sandbox
from llama_mgr.make.tool import ToolRun, run_tool
from llama_mgr.make.workshop import Workshop
from llama_mgr.models.gguf import GgufHeader, read_gguf
from llama_mgr.models.quants import SUFFIX, shard_of
from llama_mgr.models.traits import Traits, merged, traits_of
from llama_mgr.report import Progress, Reporter
from llama_mgr.store import read_bounded, storage_errors
from llama_mgr.text import printable

_PERCENT = re.compile(r"Writing:\s+(\d+)%")
_TENSOR = re.compile(r"INFO:[\w.-]+:([\w.]+),\s+torch\.")
_BYTES_PER_WEIGHT = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "auto": 2.0, "q8_0": 34 / 32, "tq1_0": 1.0, "tq2_0": 1.0}
_LORA_SCRIPT = "convert_lora_to_gguf.py"
_METADATA_LIMIT_BYTES = 1024 * 1024
_SIZE = re.compile(r"\d+[KMG]?")


class ConvertOptions(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What may be asked of the converter."""

    outtype: str = "auto"
    """`f16`, `bf16`, `f32`, `q8_0`, …; `auto` is the 16-bit type that the weights have, or F16."""
    mmproj: bool = False
    """Convert the projector of a model that sees or hears, instead of the model."""
    split_max_size: str = ""
    """Shards of at most this size, such as `4G` (powers of 1000, as the converter counts)."""
    model_name: str = ""
    trust_remote_code: bool = False


@dataclass
class Converter:
    """Converts with the converter of one build, in `environment`.

    `metadata` is a JSON file of what the header shall say of authors and licence, `base` the checkpoint that an adapter
    belongs to. `force` goes on where the disk seems to be too small, and replaces files of the same name.
    """

    workshop: Workshop
    environment: Callable[[], Environment]
    options: ConvertOptions = field(default_factory=ConvertOptions)
    metadata: Path | None = None
    base: CheckpointDir | None = None
    replacing: Replacing = KEEP

    def require_possible(self, checkpoint: CheckpointDir) -> None:
        """Refuse what this build's converter cannot do.

        Raises:
            BadInputError: it lacks an option, a value is malformed, or an adapter comes without its base.
            IncompleteSourceError: the build has no converter.
        """
        build, options = self.workshop.build, self.options
        if build.converter is None or build.converter_requirements is None:
            hint = "install a version from git, or choose another instance with -i NAME"
            raise IncompleteSourceError("cannot convert with", build.build_id, "it has no converter", hint=hint)
        if options.outtype not in self._outtypes():
            why = f"the converter of {build.build_id} makes {', '.join(sorted(self._outtypes()))}"
            is_type = options.outtype.upper() in {one.name for one in self.workshop.capabilities.quant_types}
            later = f"convert to f16, then llama-mgr quantize FILE {options.outtype.upper()}"
            raise BadInputError("cannot convert to", options.outtype, why, hint=later if is_type else None)
        if options.split_max_size and not _SIZE.fullmatch(options.split_max_size):
            raise BadInputError("cannot use --split-max-size", options.split_max_size, "the form is N, NK, NM or NG")
        if checkpoint.kind == "adapter":
            self._require_adapter(checkpoint)
        elif self.base is not None:
            raise BadInputError("cannot use --base with", checkpoint.path.name, "it is a model, and no adapter")
        for flag in self._flags(checkpoint):
            self.workshop.require_flag("converter", self.workshop.capabilities.convert_flags, flag)
        if self.metadata is not None:
            _require_json_object(self.metadata)

    def _require_adapter(self, checkpoint: CheckpointDir) -> None:
        if not (self._convert_dir / _LORA_SCRIPT).is_file():
            why = f"{self.workshop.build.build_id} has no {_LORA_SCRIPT}"
            raise IncompleteSourceError("cannot convert the adapter", checkpoint.path.name, why)
        if self.base is None:
            named = checkpoint.adapter_base or "the model that it was trained on"
            raise BadInputError(
                "cannot convert the adapter", checkpoint.path.name, "its base model is not here",
                hint=f"llama-mgr pull {printable(named)} --checkpoint, or name its directory with --base DIR",
            )  # fmt: skip
        if self.options.mmproj or self.options.split_max_size:
            raise BadInputError("cannot use --mmproj or --split-max-size with an adapter", checkpoint.path.name)

    def predicted_bytes(self, checkpoint: CheckpointDir) -> int:
        """Return about how large the result will be."""
        if not checkpoint.parameters:  # weights that are not read before
            return checkpoint.weights_bytes
        return int(checkpoint.parameters * _BYTES_PER_WEIGHT.get(self._outtype(checkpoint), 2.0))

    def argv(self, checkpoint: CheckpointDir, input_name: str, output_name: str) -> list[str]:
        """Return the converter's arguments behind the script; names lie in the directory where it runs."""
        options = self.options
        words = ["--outfile", output_name, "--outtype", self._outtype(checkpoint)]
        words += ["--mmproj"] if options.mmproj else []
        words += ["--split-max-size", options.split_max_size] if options.split_max_size else []
        words += ["--model-name", options.model_name] if options.model_name else []
        words += ["--metadata", str(self.metadata)] if self.metadata else []
        words += ["--mistral-format"] if checkpoint.is_mistral else []
        if checkpoint.kind == "adapter":
            words += ["--base", "base", *(["--trust-remote-code"] if options.trust_remote_code else [])]
        return [*words, input_name]

    def convert(
        self, checkpoint: CheckpointDir, place: Place, source: SourceRecord, known: Mapping[str, InputRecord]
    ) -> Made:
        """Have `checkpoint` as GGUF at `place`; what was made before from the same files in the same way stays.

        On disk afterwards: the file, or all shards, with side-cars. After an error or a kill: nothing new.

        Args:
            checkpoint: what is converted.
            place: where the result goes.
            source: where the checkpoint came from.
            known: hashes of its files, by name, from whoever knows them.

        Raises:
            OutputExistsError: a file of another making has the name.
            NoSpaceError: the disk has no room, or no longer.
            UnsupportedArchitectureError: this build does not know the model.
            ConvertFailedError: the converter failed.
            IntegrityError: it made something else than was asked for.
            RemoteError, ChildFailedError: its Python environment cannot be made.
        """
        self.require_possible(checkpoint)
        provenance = self._provenance(checkpoint, place.stem, source, known)
        found = found_made(place, provenance.digest)
        if found is not None:
            return found
        guess = self._names(checkpoint, place, self._outtype(checkpoint), [])
        if guess:
            require_free_name(place.directory / guess[0], self.workshop.reporter, self.replacing, provenance.digest)
        needed_bytes = self.predicted_bytes(checkpoint)
        require_room("convert", checkpoint.path.name, place.directory, needed_bytes, force=self.replacing.force)
        with held_output(self.workshop.home, place, provenance.digest, self.workshop.reporter):
            return found_made(place, provenance.digest) or self._made(checkpoint, place, provenance)

    # -- the work ------------------------------------------------------------------------------------------------------

    def _made(self, checkpoint: CheckpointDir, place: Place, provenance: Provenance) -> Made:
        environment = self.environment()
        with draft(self.workshop.home, place) as directory:
            out = directory / "out"
            out.mkdir()
            run = self._run(checkpoint, place, environment, directory)
            if run.status != 0:
                self._fail(run, checkpoint, place, written_bytes(out))
            files = sorted(out.glob(f"*{SUFFIX}"))
            names = self._checked_names(checkpoint, place, files)
            command = [Path(word).name if word.startswith("/") else word for word in self._shown(run)]
            took = msgspec.structs.replace(provenance, took_s=round(run.took_s, 2), command=command)
            staged = list(zip(files, names, strict=True))
            reporter = self.workshop.reporter
            return publish_made(self.workshop.home, place, staged, took, reporter, self.replacing)

    def _run(self, checkpoint: CheckpointDir, place: Place, environment: Environment, directory: Path) -> ToolRun:
        trusts = self.options.trust_remote_code
        # The name of the directory becomes the model's, where the checkpoint does not say another.
        (directory / "checkpoint").mkdir()
        stage_checkpoint(checkpoint, directory / "checkpoint" / place.stem, trust_remote_code=trusts)
        if self.base is not None:
            stage_checkpoint(self.base, directory / "base", trust_remote_code=trusts)
        box = sandbox(directory / "scratch", self.workshop.user_environ)
        if box.has_network:
            self.workshop.reporter.note("the converter is told to stay offline, but this system cannot keep it so")
        if trusts:
            self.workshop.reporter.warn(f"the code that comes with {printable(checkpoint.path.name)} is run")
        script = _LORA_SCRIPT if checkpoint.kind == "adapter" else str(self.workshop.build.converter)
        argv: list[str | Path] = [
            *box.argv_prefix, environment.python, self._convert_dir / script,
            *self.argv(checkpoint, f"checkpoint/{place.stem}", f"out/model{SUFFIX}"),
        ]  # fmt: skip
        self.workshop.reporter.step(f"convert {printable(place.stem)} with {self.workshop.build.build_id}")
        with self.workshop.reporter.progress(f"convert {printable(place.stem)}", 100, "steps") as bar:
            return run_tool(
                self.workshop.home,
                argv,
                environ=self._environ(box, environment),
                cwd=directory,
                on_line=_heard(bar),
                called="convert",
            )

    def _environ(self, box: Sandbox, environment: Environment) -> dict[str, str]:
        """Return the converter's environment; compiled Python is kept where no foreign code could change it."""
        if self.options.trust_remote_code:
            return box.environ
        kept = self.workshop.home.cache_dir / "pycache" / environment.path.name
        with storage_errors("cannot make", kept):
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        environ = {name: value for name, value in box.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**environ, "PYTHONPYCACHEPREFIX": str(kept)}

    def _fail(self, run: ToolRun, checkpoint: CheckpointDir, place: Place, written: int) -> None:
        name, home = checkpoint.path.name, self.workshop.home
        require_was_not_full("convert", name, place.directory, self.predicted_bytes(checkpoint), written)
        raise_failure(home, run, name, checkpoint.architectures, self.workshop.build.build_id)

    def _checked_names(self, checkpoint: CheckpointDir, place: Place, files: Sequence[Path]) -> list[str]:
        """Return what the files are called, after a look at their headers."""
        if not files:
            raise IntegrityError("cannot find what the converter made of", checkpoint.path.name)
        headers = [read_gguf(file) for file in files]
        wanted = "adapter" if checkpoint.kind == "adapter" else "mmproj" if self.options.mmproj else "model"
        traits = _traits(headers, files)
        if traits.kind != wanted:
            why = f"it is a GGUF of the kind '{printable(traits.kind)}', and a {wanted} was wanted"
            raise IntegrityError("cannot use what the converter made of", checkpoint.path.name, why)
        return self._names(checkpoint, place, traits.quant, files)

    def _names(self, checkpoint: CheckpointDir, place: Place, quant: str, files: Sequence[Path]) -> list[str]:
        beginning = "mmproj-" if self.options.mmproj else ""
        middle = "-lora" if checkpoint.kind == "adapter" else ""
        stem = f"{beginning}{place.stem}{middle}-{quant.upper()}"
        stem = place.file_name.removesuffix(SUFFIX) or stem
        if len(files) > 1:
            numbers = [shard_of(file.name) or ("", 1, 1) for file in files]
            return [f"{stem}-{number:05d}-of-{count:05d}{SUFFIX}" for _, number, count in numbers]
        return [f"{stem}{SUFFIX}"]

    # -- what it depends on --------------------------------------------------------------------------------------------

    @property
    def _convert_dir(self) -> Path:
        return self.workshop.prefix / "convert"

    def _provenance(
        self, checkpoint: CheckpointDir, stem: str, source: SourceRecord, known: Mapping[str, InputRecord]
    ) -> Provenance:
        reporter = self.workshop.reporter
        inputs = [_named(checkpoint.path, name, reporter, known) for name in checkpoint.files]
        if self.base is not None:  # of which only the configuration counts, not the weights
            inputs.append(_named(self.base.path, "config.json", reporter, {}))
        more = [input_of(self.metadata, reporter).sha256] if self.metadata else []
        options: dict[str, Any] = {**msgspec.to_builtins(self.options), "outtype": self._outtype(checkpoint)}
        options["architectures"] = list(checkpoint.architectures)
        options["directory_name"] = stem  # becomes the model's, where nothing else says one
        code = converter_code(self._convert_dir, checkpoint.architectures, mmproj=self.options.mmproj)
        return begun(
            "convert", step_digest("convert", self.workshop.origin, options, inputs, *more), self.workshop.origin,
            command=[], inputs=inputs, options=options, source=source, code={"converter": msgspec.to_builtins(code)},
            made_for=self.replacing.made_for,
        )  # fmt: skip

    def _outtypes(self) -> set[str]:
        """Return what `--outtype` takes, `auto` among it: where the converter has no such value, it is F16."""
        flags = self.workshop.capabilities.convert_flags
        value = next((flag.value for flag in flags if "--outtype" in flag.spellings), "{f32,f16}")
        return {"auto", *value.strip("{}").split(",")}

    def _outtype(self, checkpoint: CheckpointDir) -> str:
        """Return the outtype to ask for; `auto` is decided here, so that every version does the same."""
        if self.options.outtype != "auto":
            return self.options.outtype
        is_brain_float = max(checkpoint.dtypes, key=checkpoint.dtypes.__getitem__, default="") == "BF16"
        return "bf16" if is_brain_float and "bf16" in self._outtypes() and checkpoint.kind == "model" else "f16"

    def _flags(self, checkpoint: CheckpointDir) -> list[str]:
        if checkpoint.kind == "adapter":
            return []
        return [word for word in self.argv(checkpoint, "", "") if word.startswith("--")]

    @staticmethod
    def _shown(run: ToolRun) -> Sequence[str]:
        start = next(number for number, word in enumerate(run.argv) if Path(word).name.startswith("python"))
        return run.argv[start:]


def _heard(bar: Progress) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        percent, tensor = _PERCENT.search(line), _TENSOR.match(line)
        if percent:
            bar.update(int(percent[1]), 100, "writing")
        elif tensor:
            bar.update(0, 100, tensor[1])

    return on_line


def _traits(headers: Sequence[GgufHeader], files: Sequence[Path]) -> Traits:
    parts = [traits_of(header, file.name) for header, file in zip(headers, files, strict=True)]
    return merged(parts) if len(parts) > 1 else parts[0]


def _named(directory: Path, name: str, reporter: Reporter, known: Mapping[str, InputRecord]) -> InputRecord:
    found = input_of(directory / name, reporter, {Path(name).name: known[name]} if name in known else {})
    return msgspec.structs.replace(found, name=name)


def _require_json_object(file: Path) -> None:
    try:
        is_object = isinstance(json.loads(read_bounded(file, _METADATA_LIMIT_BYTES)), dict)
    except (NotFoundError, StorageError):
        raise
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise BadInputError("cannot use --metadata", file, "it is not a JSON object")
