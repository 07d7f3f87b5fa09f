"""`llama-mgr.lock`: the exact commits that a directory of manifests stood for on one day, to be committed with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from llama_mgr import store
from llama_mgr.build.source import Source
from llama_mgr.errors import CorruptStateError, NotFoundError, OutOfDateError
from llama_mgr.instances.installation import Installer
from llama_mgr.instances.manifest import ManifestFile
from llama_mgr.instances.pin import Pin
from llama_mgr.process import argv_words
from llama_mgr.settings import Settings

LOCK_NAME = "llama-mgr.lock"
_KIND = "instance-lock"
_PUBLIC_MODE = 0o644  # it lies in a project's repository, not in our home
_COMMIT_FORM = "^([0-9a-f]{40}|(snapshot|tree):[0-9a-f]{64})$"


class LockedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """What one manifest stood for."""

    name: str
    manifest_sha256: str
    """Of the manifest's file; a changed manifest must be locked again."""
    version: Annotated[str, msgspec.Meta(min_length=1)]
    """The label: `b11434` where the manifest says `latest`."""
    commit: Annotated[str, msgspec.Meta(pattern=_COMMIT_FORM)]
    build_number: int
    source_kind: str
    location: str


class LockFile(msgspec.Struct, kw_only=True):
    """The whole file."""

    instances: list[LockedInstance]

    def pin_of(self, file: ManifestFile) -> Pin:
        """Return the exact source of a manifest.

        Raises:
            OutOfDateError: the lock file does not know this manifest as it is now.
        """
        locked = {one.name: one for one in self.instances}.get(file.manifest.name)
        hint = f"lock it again with `{_lock_command(file.path.parent)}`"
        if locked is None:
            raise OutOfDateError("cannot use the lock file for", file.path, f"{LOCK_NAME} does not list it", hint=hint)
        if locked.manifest_sha256 != file.sha256:
            raise OutOfDateError(
                "cannot use the lock file for", file.path, f"the manifest was changed after {LOCK_NAME}", hint=hint
            )
        return Pin(locked.version, locked.commit, f"if that is right, {hint}")


def read_lock(directory: Path) -> LockFile:
    """Return the lock file of `directory`.

    Raises:
        OutOfDateError: there is none.
        CorruptStateError: it is damaged, or has a merge conflict.
        NewerStateError: a newer llama-mgr wrote it.
    """
    path = directory / LOCK_NAME
    try:
        return store.read_document(path, _KIND, LockFile)
    except NotFoundError as error:
        raise OutOfDateError(
            "cannot use the lock file", path, "there is none", hint=f"make it with `{_lock_command(directory)}`"
        ) from error
    except CorruptStateError as error:
        error.hint = f"make it again with `{_lock_command(directory)}`"
        raise


def write_lock(directory: Path, files: Sequence[ManifestFile], installer: Installer, settings: Settings) -> LockFile:
    """Find the exact commit of every manifest, and write them into the lock file of `directory`; return it.

    On disk afterwards: the whole new lock file; or, when one source cannot be found, the old one untouched.

    Raises:
        LlamaMgrError: as `Sources.locate`.
    """
    locked = []
    for file in files:
        wanted = installer.source_of(file.manifest.wanted(settings))
        locked.append(_locked(file, installer.builder.sources.locate(wanted)))
    document = LockFile(instances=locked)
    store.write_document(directory / LOCK_NAME, _KIND, document, mode=_PUBLIC_MODE)
    return document


def _lock_command(directory: Path) -> str:
    return argv_words(["llama-mgr", "instance", "lock", directory])


def _locked(file: ManifestFile, source: Source) -> LockedInstance:
    return LockedInstance(
        name=file.manifest.name,
        manifest_sha256=file.sha256,
        version=source.version,
        commit=source.commit,
        build_number=source.build_number,
        source_kind=source.kind,
        location=source.location,
    )
