"""Every error a user can meet: a class with a stable code, an exit status and an HTTP status.

`docs/exit-codes.md` is generated from the classes in this file.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from llama_mgr.text import printable


class LlamaMgrError(Exception):
    """Base of all errors that are shown to users as one clear sentence.

    Args:
        what: what could not be done, without a full stop: `cannot install`.
        subject: the input it was about, shown quoted and printable.
        why: the reason, with the limit or the expected form.
        hint: the next command or flag that mends it.
        tail: last lines of a child's output, shown only where there is room.
        log_file: where the whole story is.
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        what: str,
        subject: object = None,
        why: str = "",
        *,
        hint: str | None = None,
        tail: list[str] | None = None,
        log_file: object = None,
    ) -> None:
        """Compose the sentence; outside text in `subject` is made printable here, `what` and `why` are ours."""
        self.hint = hint
        self.tail = tail or []
        self.log_file = None if log_file is None else str(log_file)
        quoted = "" if subject is None else f" '{printable(subject)}'"
        self.message = f"{what}{quoted}: {why}" if why else f"{what}{quoted}"
        super().__init__(self.message)

    def as_document(self) -> dict[str, Any]:
        """Return what `--json` prints: `{"error": {"code", "exit", "message", "hint", …}}`."""
        body: dict[str, Any] = {
            "code": self.code,
            "exit": self.exit_status,
            "message": self.message,
            "hint": self.hint,
        }
        if self.tail:
            body["tail"] = self.tail
        if self.log_file:
            body["log_file"] = self.log_file
        return {"error": body}


class InternalError(LlamaMgrError):
    """A bug of ours; the traceback was written to the named file."""

    code, exit_status, http_status = "internal_error", 1, 500


class BadInputError(LlamaMgrError):
    """A value on the command line is malformed or out of range."""

    code, exit_status, http_status = "bad_input", 2, 400


class BadNameError(BadInputError):
    """A name that the user chose does not have the allowed form."""

    code = "bad_name"


class BadVersionError(BadInputError):
    """A version, branch or ref is not one that git could have."""

    code = "bad_version"


class BadUrlError(BadInputError):
    """A repository URL is malformed, or carries credentials."""

    code = "bad_url"


class BadReferenceError(BadInputError):
    """What should name a model has none of the forms that a reference may have."""

    code = "bad_reference"


class AmbiguousModelError(BadInputError):
    """Several models or quants are meant by what the user typed; they are listed."""

    code = "ambiguous_model"


class BadQuantTypeError(BadInputError):
    """The build's llama-quantize does not know the type; those that it knows are listed."""

    code = "bad_quant_type"


class ImatrixNeededError(BadInputError):
    """The type keeps so few bits that llama-quantize refuses it without an importance matrix."""

    code = "imatrix_needed"


class SameFileError(BadInputError):
    """The output would be written over the input."""

    code = "same_file"


class BadConfigError(BadInputError):
    """config.toml, a recipe or an instance manifest does not parse or validate."""

    code = "bad_config"


class NotFoundError(LlamaMgrError):
    """The named thing does not exist."""

    code, exit_status, http_status = "not_found", 3, 404


class UnknownInstanceError(NotFoundError):
    """No instance has this name."""

    code = "unknown_instance"


class UnknownVersionError(NotFoundError):
    """The repository, or the package index, has no such version."""

    code = "unknown_version"


class UnknownRecipeError(NotFoundError):
    """No recipe has this name."""

    code = "unknown_recipe"


class UnknownToolError(NotFoundError):
    """The build has no such program."""

    code = "unknown_tool"


class UnknownModelError(NotFoundError):
    """No model, alias or quant has this name."""

    code = "unknown_model"


class UnknownRepositoryError(NotFoundError):
    """The hub has no such repository, revision or file, or does not show it without a login."""

    code = "unknown_repository"


class NoPreviousBuildError(NotFoundError):
    """There is nothing to roll back to."""

    code = "no_previous_build"


class ConflictError(LlamaMgrError):
    """Something is in the way: it exists, is busy or is in use."""

    code, exit_status, http_status = "conflict", 4, 409


class NameTakenError(ConflictError):
    """The name differs from an existing one only by case or Unicode form, or belongs to something else."""

    code = "name_taken"


class BusyError(ConflictError):
    """Another process works on the same thing and did not finish in time."""

    code = "busy"


class InUseError(ConflictError):
    """A running server or another pointer still needs it."""

    code = "in_use"


class OutOfDateError(ConflictError):
    """`--locked` was asked for, and the lock file does not say what the manifests ask for."""

    code = "out_of_date"


class OutputExistsError(ConflictError):
    """The file that is to be made exists, and was not made from the same inputs in the same way."""

    code = "output_exists"


class IntegrityError(LlamaMgrError):
    """Something is not what it claims to be."""

    code, exit_status, http_status = "integrity", 5, 500


class CorruptStateError(IntegrityError):
    """A state file of ours is damaged."""

    code = "corrupt_state"


class HashMismatchError(IntegrityError):
    """Downloaded or stored bytes do not have the recorded sha256."""

    code = "hash_mismatch"


class BadGgufError(IntegrityError):
    """A file is no whole, well-formed GGUF."""

    code = "bad_gguf"


class IncompleteModelError(IntegrityError):
    """A split model lacks a shard, or its shards do not belong together."""

    code = "incomplete_model"


class BadCheckpointError(IntegrityError):
    """A checkpoint is damaged, incomplete or no checkpoint."""

    code = "bad_checkpoint"


class UndeclaredDefineError(IntegrityError):
    """A CMake define that the chosen llama.cpp does not declare."""

    code = "undeclared_define"


class VerificationError(IntegrityError):
    """A finished build does not do what it was built for."""

    code = "verification_failed"


class IncompleteSourceError(IntegrityError):
    """The source tree lacks the files that this build needs."""

    code = "incomplete_source"


class RemoteError(LlamaMgrError):
    """A remote could not be reached, or did not answer sensibly; trying again may help."""

    code, exit_status, http_status = "remote_unavailable", 6, 502


class RemoteDeniedError(LlamaMgrError):
    """The remote wants a login, or refuses this one."""

    code, exit_status, http_status = "remote_denied", 7, 403


class MissingToolsError(LlamaMgrError):
    """Programs or development files that the work needs are not installed; all of them are named at once."""

    code, exit_status, http_status = "missing_tools", 8, 500


class ChildFailedError(LlamaMgrError):
    """A program that we ran failed; its last lines and its log are named."""

    code, exit_status, http_status = "child_failed", 9, 502


class ConfigureFailedError(ChildFailedError):
    """CMake could not configure the tree."""

    code = "configure_failed"


class BuildFailedError(ChildFailedError):
    """Compiling or linking failed."""

    code = "build_failed"


class ConvertFailedError(ChildFailedError):
    """The converter could not convert a checkpoint."""

    code = "convert_failed"


class UnsupportedArchitectureError(ConvertFailedError):
    """The converter of this build does not know the model's architecture, or its tokenizer."""

    code = "unsupported_architecture"


class QuantizeFailedError(ChildFailedError):
    """llama-quantize failed."""

    code = "quantize_failed"


class ImatrixFailedError(ChildFailedError):
    """llama-imatrix failed."""

    code = "imatrix_failed"


class EvaluateFailedError(ChildFailedError):
    """llama-perplexity or llama-bench failed, or said something that cannot be understood."""

    code = "evaluate_failed"


class SplitFailedError(ChildFailedError):
    """llama-gguf-split failed."""

    code = "split_failed"


class StorageError(LlamaMgrError):
    """The disk, its permissions or an I/O error here stopped the work."""

    code, exit_status, http_status = "storage", 10, 500


class NoSpaceError(StorageError):
    """There is not enough free disk for the whole job."""

    code, http_status = "no_space", 507


class RefusedError(LlamaMgrError):
    """Refused as unsafe; the flag that allows it is named where there is one."""

    code, exit_status, http_status = "refused", 11, 403


class UnsafeCheckpointError(RefusedError):
    """A checkpoint brings code, or weights that can run code when they are read."""

    code = "unsafe_checkpoint"


class NewerStateError(LlamaMgrError):
    """State was written by a newer llama-mgr; it is left untouched."""

    code, exit_status, http_status = "newer_state", 12, 500


class HungUpError(LlamaMgrError):
    """SIGHUP: the terminal was closed; children were stopped and staging removed."""

    code, exit_status, http_status = "hung_up", 129, 500


class InterruptedByUserError(LlamaMgrError):
    """Ctrl-C; children were stopped and staging removed."""

    code, exit_status, http_status = "interrupted", 130, 500


class TerminatedError(LlamaMgrError):
    """SIGTERM; children were stopped and staging removed."""

    code, exit_status, http_status = "terminated", 143, 500


def error_classes() -> Iterator[type[LlamaMgrError]]:
    """Yield every error class below the base, in order of exit status, then code."""
    found: list[type[LlamaMgrError]] = []
    pending = [LlamaMgrError]
    while pending:
        subclasses = pending.pop().__subclasses__()
        found += subclasses
        pending += subclasses
    yield from sorted(found, key=lambda one: (one.exit_status, one.code))
