"""GGUF files that something is made of: what they are, their contents, and how they were made themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import BadInputError
from llama_mgr.make.inputs import input_of
from llama_mgr.make.ledger import model_sha256
from llama_mgr.make.provenance import InputRecord, Provenance, provenance_of
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.traits import Traits, merged, traits_of
from llama_mgr.report import Reporter


@dataclass(frozen=True)
class GgufInput:
    """A GGUF that something is made of: one file, or all shards of one."""

    files: tuple[Path, ...]
    traits: Traits
    inputs: tuple[InputRecord, ...]
    parent: Provenance | None

    @property
    def file(self) -> Path:
        """The file, or the first shard."""
        return self.files[0]

    @property
    def tensor_count(self) -> int:
        """How many tensors all shards have together."""
        return sum(share.tensors for share in self.traits.types.values())

    @property
    def parent_sha256(self) -> str:
        """The content that this was quantized from, if its record says so; empty for others."""
        made = provenance_of(self.file)
        if made is None or made.step != "quantize":
            return ""
        return model_sha256([one.sha256 for one in made.inputs if one.sha256 != made.imatrix_sha256])

    def linked_below(self, directory: Path) -> str:
        """Make `directory/input/` with links to the files, so that their names, and no paths, go into what is made.

        Returns:
            The path of the first one from `directory`.
        """
        (directory / "input").mkdir(exist_ok=True)
        for file in self.files:
            (directory / "input" / file.name).symlink_to(file.absolute())
        return f"input/{self.file.name}"


def gguf_input(files: Sequence[Path], reporter: Reporter) -> GgufInput:
    """Return the GGUF that `files` are, all shards of it in order; its content is hashed unless its side-car tells it.

    Raises:
        BadGgufError: a file is no GGUF.
        BadInputError: it is no model.
        IncompleteModelError: a shard is missing.
    """
    parts = [traits_of(read_gguf(file), file.name) for file in files]
    traits = merged(parts) if len(parts) > 1 else parts[0]
    if traits.kind not in {"model", "mmproj"}:
        hint = "name a model: llama-mgr list"
        raise BadInputError("cannot make anything of", files[0], f"it is a GGUF of the kind '{traits.kind}'", hint=hint)
    inputs = tuple(input_of(file, reporter) for file in files)
    return GgufInput(tuple(files), traits, inputs, provenance_of(files[0]))
