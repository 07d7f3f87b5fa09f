"""What models are made with: one instance, its programs, its converter, and what it can do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.build import use
from llama_mgr.build.capability import Capabilities, Flag
from llama_mgr.build.record import BuildRecord
from llama_mgr.errors import BadInputError, CorruptStateError, RefusedError, UnknownToolError
from llama_mgr.instances.instance import Instance, Instances
from llama_mgr.make.provenance import BuildOrigin
from llama_mgr.make.tool import tool_environ
from llama_mgr.paths import Home
from llama_mgr.report import Reporter

_ALL_LAYERS = 999


@dataclass(frozen=True)
class Workshop:
    """An instance at work: its build stays on disk as long as this is open."""

    home: Home
    instance: str
    build: BuildRecord
    prefix: Path
    environ: Mapping[str, str]
    """What programs get: nothing of the user's that could change a result."""
    user_environ: Mapping[str, str]
    reporter: Reporter

    @property
    def capabilities(self) -> Capabilities:
        """What the build can do."""
        return self.build.capabilities

    @property
    def origin(self) -> BuildOrigin:
        """Which build it is, as the record of what it makes will say."""
        plan = self.build.plan
        return BuildOrigin(
            instance=self.instance, build_id=self.build.build_id, version=plan.version, commit=plan.commit,
            digest=self.build.digest,
        )  # fmt: skip

    @property
    def has_gpu(self) -> bool:
        """Whether it was built for something else than the CPU."""
        return bool(set(self.capabilities.backends) - {"cpu", "blas"})

    def device_words(self, threads: int, gpu_layers: int | None) -> list[str]:
        """Return the options of its programs for threads (0: theirs to choose) and GPU layers (None: all)."""
        words = ["-t", str(threads)] if threads else []
        if gpu_layers is None and not self.has_gpu:
            return words
        return [*words, "-ngl", str(_ALL_LAYERS if gpu_layers is None else gpu_layers)]

    def program(self, tool: str) -> Path:
        """Return the path of `quantize`, `imatrix`, `perplexity`, `bench` or `gguf-split`.

        Raises:
            UnknownToolError: it was not built.
            CorruptStateError: it is gone.
        """
        name = self.build.programs.get(tool)
        if name is None:
            raise UnknownToolError(
                f"cannot use the instance '{self.instance}': it was built without", f"llama-{tool}",
                f"it has {', '.join(sorted(self.build.programs.values()))}",
                hint=f"install it again without --targets: llama-mgr install NAME {self.build.plan.version}",
            )  # fmt: skip
        path = self.prefix / "bin" / name
        if not path.is_file():
            hint = f"llama-mgr instance repair {self.instance}"
            raise CorruptStateError("cannot use the instance", self.instance, f"bin/{name} is missing", hint=hint)
        return path

    def require_flag(self, tool: str, flags: list[Flag], spelling: str) -> None:
        """Refuse an option that a program of this build does not have.

        Raises:
            BadInputError: it does not.
        """
        if not any(spelling in flag.spellings for flag in flags):
            raise BadInputError(
                f"cannot use {spelling} with", self.build.build_id, f"the {tool} of this version has no such option",
                hint="choose a newer instance with -i NAME (llama-mgr install latest)",
            )  # fmt: skip


@contextmanager
def opened_workshop(
    home: Home, instance: Instance, environ: Mapping[str, str], reporter: Reporter
) -> Iterator[Workshop]:
    """Lend what `instance` can make models with; its build cannot be deleted meanwhile.

    Raises:
        RefusedError: the instance is a linked directory, of which nobody knows what it was built from.
        CorruptStateError: its build is gone or damaged.
    """
    if instance.linked is not None:
        raise RefusedError(
            "cannot make models with", instance.name, f"it is linked to {instance.linked}, and nobody knows its source",
            hint="install that version, or choose another instance with -i NAME",
        )  # fmt: skip
    build_id = instance.current.build_id
    with use.used(home, build_id, "make models", reporter):
        instances = Instances(home)
        build = instances.build_of(instance)
        yield Workshop(home, instance.name, build, instances.prefix(instance), tool_environ(environ), environ, reporter)
