"""A plan: everything that decides what a build will be, as pure data with a digest."""

import hashlib
from typing import Any

import msgspec

from llama_mgr.names import NAME_LIMIT

ALL_TARGETS = "all"
"""The target that makes everything; it has no program of its own."""


FLAVOUR_LIMIT = NAME_LIMIT - len("-12345678")
"""Characters of a flavour: with the digest it must still be a name."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Commit, resolved recipe, defines, compilers and host facts of one build.

    Equal digests mean equal results, so that a finished build with this digest is used again and no compiler runs.
    What may differ without changing the result (where the source was fetched from, the version's label, the versions of
    cmake and ninja, the number of jobs) is not part of the digest.
    """

    version: str
    """Upstream's name for the source: `b11434`, `v0.6.0`, a branch."""
    build_number: int
    """Number of commits; 0 where nobody knows it."""
    commit: str
    """40 hex digits, `snapshot:<sha256>`, or the digest of a local tree."""
    source_kind: str
    """`git`, `snapshot` or `path`."""
    location: str
    """Repository URL, package name or directory."""
    recipe: str
    parts: list[str]
    defines: dict[str, str]
    environ: dict[str, str]
    """What the recipe adds to the environment of configure and build."""
    targets: dict[str, list[str]]
    """Canonical tool to candidate CMake targets."""
    omit: list[str] = []
    """Globs of built files that are left out."""
    patch_build_info: str | None
    compilers: dict[str, str]
    """Language or toolkit to identity: `{"c++": "g++ 12.2.0 x86_64-linux-gnu", "nvcc": "13.0"}`."""
    host: dict[str, str]
    """`os`, `machine`, and for builds tuned to this CPU the digest of its features."""

    @property
    def digest(self) -> str:
        """64 hex digits over all that decides the result."""
        essential: dict[str, Any] = msgspec.to_builtins(self)
        for name in ("version", "source_kind", "location"):
            del essential[name]
        return hashlib.sha256(msgspec.json.encode(essential, order="sorted")).hexdigest()

    @property
    def build_id(self) -> str:
        """`b11434-cpu-1a2b3c4d`: the name of the build's directory."""
        return f"{self.flavour}-{self.digest[:8]}"

    @property
    def flavour(self) -> str:
        """`b11434-cpu` or `b11434-cuda-rpc`: what an unnamed instance is called."""
        allowed = (one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in self.version)
        label = "".join(allowed)
        words = "-".join([label.strip("-._").lower()[:32] or "local", self.recipe, *self.parts])
        return words[:FLAVOUR_LIMIT].rstrip("-._")
