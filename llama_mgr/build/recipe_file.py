"""The shapes of a recipe file (`recipes/*.toml`): how to build for one kind of hardware, as data.

`recipes/recipe.schema.json` is generated from these shapes. `recipe.py` finds and inherits recipes, `resolve.py` turns
them into the defines for one tree, `toolchain.py` finds the tools that they ask for.
"""

from typing import Annotated

import msgspec

Words = str | list[str]
Value = bool | int | str | list[str]
Name = Annotated[str, msgspec.Meta(pattern=r"^(builtin:)?[a-z0-9][a-z0-9._-]{0,63}$")]


class _Part(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True):
    """Base of all shapes in recipe files: kebab-case keys, unknown keys refused."""


class When(_Part, frozen=True, kw_only=True):
    """The condition of a rule. All given keys must hold; a list inside a key means "any of"."""

    option: Words = msgspec.field(default_factory=list)
    """The tree declares this CMake option: `option(NAME …)` or `set(NAME … CACHE …)`."""
    no_option: Words = msgspec.field(default_factory=list)
    """The tree declares none of these options."""
    file: Words = msgspec.field(default_factory=list)
    """The tree has this file or directory."""
    no_file: Words = msgspec.field(default_factory=list)
    """The tree has none of these."""
    text: Words = msgspec.field(default_factory=list)
    """`path::literal`: the text occurs in that file of the tree."""
    no_text: Words = msgspec.field(default_factory=list)
    """The text does not occur, or the file does not exist."""
    os: Words = msgspec.field(default_factory=list)
    """`linux`, `darwin`, …: `platform.system()` in lower case."""
    machine: Words = msgspec.field(default_factory=list)
    """`x86_64`, `aarch64`, `arm64`, …: `platform.machine()`."""
    fact: dict[str, str] = msgspec.field(default_factory=dict)
    """Fact name to condition: `present`, `absent`, `=text`, or a version range such as `>=11.8,<12.8`, of which only as
    many numbers are compared as the limit has."""
    setting: dict[str, bool | str | list[str]] = msgspec.field(default_factory=dict)
    """Setting of this recipe to the value (or one of the values) it must have."""
    build: str = ""
    """Range of upstream build numbers, such as `>=4167`, for what the tree does not tell. 0 never matches."""


class Rule(_Part, frozen=True, kw_only=True):
    """Defines and environment that hold when the condition does. Rules run in order; later ones override."""

    when: When = msgspec.field(default_factory=When)
    cmake: dict[str, Value] = msgspec.field(default_factory=dict)
    """Cache variable to value. true/false become ON/OFF, lists are joined by `;`, `{fact}` is replaced, and
    `{fact:-suffix}` appends the suffix to each element of a `;` list. A value with a fact that is absent drops the
    define."""
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """Environment of configure and build, with the same replacement."""
    append: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Cache variable to elements that join its `;` list, each once, behind those of earlier rules; an element with a
    fact that is absent is left out."""
    drop: list[str] = msgspec.field(default_factory=list)
    """Defines set by earlier rules that must not be passed."""
    omit: list[str] = msgspec.field(default_factory=list)
    """Globs of files in `bin/` that are built and then left out: `libggml-cpu-sapphirerapids.*`."""
    patch_build_info: list[str] = msgspec.field(default_factory=list)
    """Files of old trees that are rewritten in the checkout so that the build knows its number (first that exists)."""


class Fact(_Part, frozen=True, kw_only=True):
    """Something learned from a tool that was found. Exactly one of `parent`, `command`, `file` is given."""

    name: str
    parent: int = 0
    """The directory that many levels above the resolved program."""
    command: list[str] = msgspec.field(default_factory=list)
    """A command whose output is matched; `{path}` is the program."""
    file: str = ""
    """A file whose text is matched; may hold `{fact}`s and globs."""
    pattern: str = r"^\s*(\S.*?)\s*$"
    """The first match's group 1 is the fact."""
    default: str = ""
    """What it usually is: shown by dry runs where the tool is missing. Nothing is built with it."""


class Need(_Part, frozen=True, kw_only=True):
    """What the tree must have for this recipe; without it nothing is configured."""

    has: When
    """The condition that must hold."""
    why: str
    """What is wrong when it does not: `this llama.cpp has no CUDA backend`."""
    when: When = msgspec.field(default_factory=When)
    """Asked only when this holds."""


class Tool(_Part, frozen=True, kw_only=True):
    """A program that the build needs."""

    name: str
    """Short name; the facts `tool.<name>` (path) and `tool.<name>.version` come from it."""
    find: list[str]
    """Places in order: `bundled:cmake` (beside our interpreter), `env:CUDACXX`, `env:CUDA_HOME/bin/nvcc`, `path:nvcc`,
    `glob:/usr/local/cuda-*/bin/nvcc` (newest version first)."""
    when: When = msgspec.field(default_factory=When)
    optional: bool = False
    version_command: list[str] = msgspec.field(default_factory=lambda: ["{path}", "--version"])
    version_pattern: str = r"(\d+\.\d+(?:\.\d+)?)"
    at_least: str = ""
    facts: list[Fact] = msgspec.field(default_factory=list)
    hint: str = ""
    """What to do without it, in words."""
    packages: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Package manager (`apt`, `dnf`, `pacman`, `brew`, `zypper`) to package names, for the install line."""


class RequiredFile(_Part, frozen=True, kw_only=True):
    """Development files that the build needs: found when any of the given forms is found."""

    name: str
    """What it is, for people: `cuBLAS development files`."""
    header: Words = msgspec.field(default_factory=list)
    """Relative to the include directories of the system and of the roots."""
    library: Words = msgspec.field(default_factory=list)
    """`libcublas.so`, relative to the library directories of the system and of the roots (globs allowed)."""
    cmake_package: Words = msgspec.field(default_factory=list)
    """A CMake package: `<name>Config.cmake` or `<name>-config.cmake` below the usual prefixes and the roots."""
    roots: list[str] = msgspec.field(default_factory=list)
    """More prefixes, with `{fact}`s: `{cuda.root}`."""
    when: When = msgspec.field(default_factory=When)
    optional: bool = False
    fact: str = ""
    """Fact that becomes the found path (absent otherwise): `lib.openssl`."""
    version_pattern: str = ""
    """Matched in the found header; group 1 is the version."""
    at_least: str = ""
    hint: str = ""
    packages: dict[str, list[str]] = msgspec.field(default_factory=dict)


class Probe(_Part, frozen=True, kw_only=True):
    """One way to list the architectures of the GPUs present."""

    command: list[str]
    pattern: str
    """Every match counts; group 1 (or all groups joined) is one architecture."""
    drop: list[str] = msgspec.field(default_factory=list)


class Fallback(_Part, frozen=True, kw_only=True):
    """The architectures to build for when no GPU is present; the first whose condition holds."""

    value: str
    when: When = msgspec.field(default_factory=When)


class Gpu(_Part, frozen=True, kw_only=True):
    """How to learn the architectures of the GPUs here; gives the facts `gpu.archs` (`;` list) and `gpu.present`."""

    detect: list[Probe] = msgspec.field(default_factory=list)
    fallback: list[Fallback] = msgspec.field(default_factory=list)


class LogCheck(_Part, frozen=True, kw_only=True):
    """What configure must (not) have said."""

    must: str = ""
    must_not: str = ""
    when: When = msgspec.field(default_factory=When)


class ArtifactCheck(_Part, frozen=True, kw_only=True):
    """A file that the finished build must have, as a glob below its prefix."""

    glob: str
    when: When = msgspec.field(default_factory=When)


class DeviceCheck(_Part, frozen=True, kw_only=True):
    """What `llama-server --list-devices` must print, as a regular expression, when `gpu.present`."""

    pattern: str
    when: When = msgspec.field(default_factory=When)


class Verify(_Part, frozen=True, kw_only=True):
    """How a build proves that it is what was asked for."""

    configure_log: list[LogCheck] = msgspec.field(default_factory=list)
    artifacts: list[ArtifactCheck] = msgspec.field(default_factory=list)
    devices: list[DeviceCheck] = msgspec.field(default_factory=list)


class Failure(_Part, frozen=True, kw_only=True):
    """A known signature in build logs, with its cause and the command or change that mends it."""

    match: str
    """Regular expression, searched in the last part of the log; its groups are `{1}`, `{2}`, … in the words."""
    cause: str
    fix: str


class Convert(_Part, frozen=True, kw_only=True):
    """Where the tree keeps its Hugging Face converter; candidates, newest spelling first."""

    scripts: list[str] = msgspec.field(default_factory=list)
    requirements: list[str] = msgspec.field(default_factory=list)
    keep: list[str] = msgspec.field(default_factory=list)
    """Files and directories that must stay beside the script."""


class Recipe(_Part, frozen=True, kw_only=True):
    """One recipe file."""

    schema: int = 1
    name: Name
    title: str
    inherits: Name | None = None
    """Another recipe, which comes before this one; `builtin:cuda` is the shipped one, even when a user's shadows it."""
    hidden: bool = False
    part: bool = False
    """It combines with another recipe (`--with rpc`) and cannot be built alone."""
    device_prefix: str = ""
    """How the backend's devices are called by `--list-devices`: `CUDA`."""
    launch_environ: list[str] = msgspec.field(default_factory=list)
    """Environment variables that a launcher may set for this backend."""
    inherit_environ: list[str] = msgspec.field(default_factory=list)
    """Variables of the user's environment that a vendor's setup script sets and the build needs. Each is the fact
    `env.<NAME>`, and is handed to configure and build unless a rule sets it; nothing else is inherited."""
    settings: dict[str, bool | str] = msgspec.field(default_factory=dict)
    """Knobs that rules test; an inheriting recipe overrides them."""
    job_memory_mib: int = 0
    """Memory that one compile job may need; with it `--parallel` is chosen from free memory. 0 = inherited."""
    disk_mib: int = 0
    """Free disk that a build needs. 0 = inherited."""
    rules: list[Rule] = msgspec.field(default_factory=list, name="rule")
    tools: list[Tool] = msgspec.field(default_factory=list, name="tool")
    files: list[RequiredFile] = msgspec.field(default_factory=list, name="file")
    needs: list[Need] = msgspec.field(default_factory=list, name="need")
    gpu: Gpu = msgspec.field(default_factory=Gpu)
    targets: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Canonical tool name to candidate CMake targets, newest first; the first that exists is built."""
    convert: Convert = msgspec.field(default_factory=Convert)
    verify: Verify = msgspec.field(default_factory=Verify)
    failures: list[Failure] = msgspec.field(default_factory=list, name="failure")
