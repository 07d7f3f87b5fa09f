"""Manifests: `instances/*.toml`, each of which says what one instance should be."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llama_mgr.build.source import Wanted, checked_version
from llama_mgr.build.version import parsed_version
from llama_mgr.errors import BadConfigError, BadInputError, NotFoundError, StorageError
from llama_mgr.instances.choice import PROJECT_FILE_NAME
from llama_mgr.instances.instance import WantedBuild
from llama_mgr.names import NAME_FORM, checked_define_name, checked_name
from llama_mgr.settings import Settings
from llama_mgr.store import read_bounded
from llama_mgr.toml_file import LIMIT_BYTES, parsed_toml

DEFAULT_DIR_NAME = "instances"
_SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"
_RELATIVE = ("./", "../")
# What `checked_version` refuses, for editors. A version that begins like a path is one, because no ref may begin so.
_CONTRADICTIONS = [
    {"required": ["version", "branch"], "properties": {"version": {"not": {"const": "latest"}}}},
    {"required": ["version", "repo-url"], "properties": {"version": {"pattern": "^[/.~]"}}},
    {"required": ["source", "branch"], "properties": {"source": {"const": "snapshot"}}},
    {"required": ["source", "repo-url"], "properties": {"source": {"const": "snapshot"}}},
]

Name = Annotated[
    str, msgspec.Meta(pattern=f"^{NAME_FORM}$", description="Lower-case letters, digits, '.', '_' and '-'; at most 64.")
]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Manifest(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One manifest file. What is left out is what `install` would choose."""

    schema: Annotated[Literal[1], msgspec.Meta(description="Version of this form; 1 when left out.")] = 1
    name: Annotated[Name, msgspec.Meta(description="The instance.")]
    version: Annotated[
        Text,
        msgspec.Meta(
            description="`latest`, `b11434`, `v0.6.0`, `pr/123`, a branch, a commit, or the path of a local tree "
            "(`./` and `../` are relative to the manifest)."
        ),
    ] = "latest"
    arch: Annotated[Name | None, msgspec.Meta(description="Recipe; `auto` suits the machine.")] = None
    parts: Annotated[list[Name], msgspec.Meta(description="Parts that are built too, such as `rpc`.")] = msgspec.field(
        default_factory=list, name="with"
    )
    repo_url: Annotated[Text | None, msgspec.Meta(description="Another repository: https, ssh or file.")] = None
    branch: Annotated[Text | None, msgspec.Meta(description="The newest commit of this branch.")] = None
    source: Annotated[
        Literal["auto", "git", "snapshot"],
        msgspec.Meta(description="`auto` is git, and a package-index snapshot where git's remote cannot be reached."),
    ] = "auto"
    targets: Annotated[
        list[Text], msgspec.Meta(description="Tools or CMake targets to build; `all` for everything.")
    ] = []
    python: Annotated[bool, msgspec.Meta(description="Make the Python environment of the converter.")] = True
    defines: Annotated[
        dict[str, bool | int | str], msgspec.Meta(description="CMake defines; true is ON, false is OFF.")
    ] = {}

    def wanted(self, settings: Settings) -> WantedBuild:
        """Return what `install` is asked for; `settings` fill in what the manifest leaves out."""
        return WantedBuild(
            version=self.version,
            repo_url=self.repo_url or self._usual_repository(settings),
            branch=self.branch,
            source=self.source,
            recipe=self.arch or settings.default_arch,
            parts=sorted(set(self.parts)),
            defines={name: _define_text(value) for name, value in self.defines.items()},
            targets=list(self.targets),
            python=self.python,
        )

    def settings_used(self, settings: Settings) -> list[str]:
        """Return the keys of those `settings` that fill in what the manifest leaves out."""
        is_used = {
            "default-arch": self.arch is None,
            "source.repo-url": not self.repo_url and self._usual_repository(settings) is not None,
        }
        return [key for key, used in is_used.items() if used]

    def _usual_repository(self, settings: Settings) -> str | None:
        """Return the repository of the settings; None for what comes from no repository."""
        is_from_git = self.source != "snapshot" and parsed_version(self.version).kind != "path"
        return settings.source.repo_url or None if is_from_git else None


@dataclass(frozen=True)
class ManifestFile:
    """A manifest, and the file that it was read from."""

    manifest: Manifest
    path: Path
    sha256: str
    """Of the file's bytes."""


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in the file `path`.

    Raises:
        BadConfigError: it is not TOML, has an unknown key, a wrong type, or a name, version or define that cannot be.
        NewerStateError: its schema is newer.
        NotFoundError, StorageError: there is no such file, or it cannot be read.
    """
    return read_manifest_file(path).manifest


def read_manifest_file(path: Path) -> ManifestFile:
    """Return the manifest in the file `path` and the digest of the file. Raises as `read_manifest` does."""
    content = read_bounded(path, LIMIT_BYTES)
    manifest = _checked(parsed_toml(content, path, Manifest), path)
    return ManifestFile(manifest, path, hashlib.sha256(content).hexdigest())


def read_manifests(directory: Path) -> list[ManifestFile]:
    """Return all manifests (`*.toml`) of `directory`, sorted by the name of their instance.

    A project's `llama-mgr.toml` and `pyproject.toml` may lie among them; they are no manifests.

    Raises:
        BadConfigError: one cannot be used, or two have one name; so nothing is done by halves.
        NotFoundError: there are none.
        StorageError: the directory cannot be read.
    """
    if not directory.is_dir():
        kind = StorageError if directory.exists() else NotFoundError
        raise kind("cannot read manifests from", directory, "there is no such directory")
    paths = [path for path in directory.glob("*.toml") if path.name not in {PROJECT_FILE_NAME, "pyproject.toml"}]
    files = [read_manifest_file(path) for path in sorted(paths)]
    if not files:
        raise NotFoundError(
            "cannot find manifests in",
            directory,
            "there is no *.toml",
            hint="name the directory that holds them; docs: instances/README.md",
        )
    by_name: dict[str, ManifestFile] = {}
    for file in files:
        other = by_name.setdefault(file.manifest.name, file)
        if other is not file:
            raise BadConfigError("cannot use", file.path, f"{other.path.name} has the name '{file.manifest.name}', too")
    return [by_name[name] for name in sorted(by_name)]


def default_directory(working_dir: Path) -> Path:
    """Return where manifests lie when nobody says: `instances/` in the working directory if it exists, else there."""
    candidate = working_dir / DEFAULT_DIR_NAME
    return candidate if candidate.is_dir() else working_dir


def schema() -> dict[str, Any]:
    """Return the JSON schema of manifests, for editors; shipped as `instances/instance.schema.json`."""
    document = msgspec.json.schema(Manifest)
    body = document["$defs"]["Manifest"]
    contradictions = {"not": {"anyOf": _CONTRADICTIONS}}
    return {"$schema": _SCHEMA_URL, **body, **contradictions, "title": "A llama-mgr instance manifest"}


def _checked(manifest: Manifest, path: Path) -> Manifest:
    try:
        checked_name(manifest.name)
        for define in manifest.defines:
            checked_define_name(define)
        for value in manifest.defines.values():
            _check_define_value(value)
        checked_version(Wanted(manifest.version, manifest.repo_url, manifest.branch, manifest.source))
    except BadInputError as error:
        raise BadConfigError("cannot read", path, error.message, hint=error.hint) from error
    if manifest.version in {".", ".."} or manifest.version.startswith(_RELATIVE):
        absolute = os.path.normpath(path.absolute().parent / manifest.version)
        return msgspec.structs.replace(manifest, version=absolute)
    return manifest


def _check_define_value(value: bool | int | str) -> None:
    if isinstance(value, str) and any(character in value for character in "\n\0"):
        raise BadInputError("cannot use the define's value", value, "it holds a line break or NUL")


def _define_text(value: bool | int | str) -> str:
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    return str(value)
