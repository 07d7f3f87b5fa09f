"""What a search for tools gives: a tool that is here, or a need that is not met."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class FoundTool:
    """A program that is here and works."""

    name: str
    path: Path
    version: str


@dataclass(frozen=True)
class Missing:
    """Something that a build needs and this machine does not have."""

    name: str
    why: str
    hint: str = ""
    """What to do, in words; used where `packages` has nothing for this host."""
    packages: dict[str, list[str]] = field(default_factory=dict)
    """Package manager to package names."""


def other_choice(name: str) -> str:
    """Return how to mend a `build.tools.<name>` that names no working program."""
    return f"llama-mgr config set build.tools.{name} /PATH/OF/{name}, or remove it from config.toml"
