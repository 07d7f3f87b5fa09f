"""Making the machine equal to a directory of manifests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from llama_mgr.errors import CorruptStateError, IntegrityError, LlamaMgrError, NotFoundError
from llama_mgr.instances.installation import Installer, Running
from llama_mgr.instances.instance import Instance, WantedBuild
from llama_mgr.instances.lock import LockFile
from llama_mgr.instances.manifest import ManifestFile
from llama_mgr.instances.pin import Pin
from llama_mgr.settings import Settings

State = Literal["equal", "missing", "changed", "damaged", "linked", "surplus"]
Action = Literal["built", "reused", "unchanged", "removed", "failed"]


@dataclass(frozen=True)
class Step:
    """What one instance is now, compared with its manifest."""

    name: str
    state: State
    why: str
    file: ManifestFile | None
    """None for a surplus instance."""
    pin: Pin | None = None


@dataclass(frozen=True)
class Done:
    """What was done about one step."""

    name: str
    action: Action
    words: str
    error: LlamaMgrError | None = None


class Sync:
    """Compares instances with manifests, and makes them equal.

    Args:
        installer: installs, compares and removes.
        settings: fill in what manifests leave out.
        lock: the exact commits to use; None takes what the manifests mean today.
    """

    def __init__(self, installer: Installer, settings: Settings, lock: LockFile | None = None) -> None:
        self._installer = installer
        self._settings = settings
        self._lock = lock

    def steps(self, files: Sequence[ManifestFile], *, prune: bool = False) -> list[Step]:
        """Return the state of every manifest's instance, and with `prune` of the instances that have no manifest.

        Only manifests that move (`latest`, branches) need the network, and none do with a lock. Nothing is installed.

        Raises:
            OutOfDateError: the lock does not know a manifest as it is now.
        """
        pins = [self._lock.pin_of(file) if self._lock else None for file in files]
        found = [self._step(file, pin) for file, pin in zip(files, pins, strict=True)]
        listed = {file.manifest.name for file in files}
        surplus = [name for name in self._installer.instances.names() if prune and name not in listed]
        return found + [Step(name, "surplus", "no manifest lists it", None) for name in surplus]

    def install(
        self, step: Step, parallel: int | None = None, after: Callable[[Instance], object] | None = None
    ) -> Done:
        """Make the instance of `step` what its manifest says; a failure is returned, not raised.

        Args:
            step: what `steps` returned.
            parallel: compile jobs at once.
            after: called when the instance is right, even if it was before, to make what belongs to it.
        """
        if step.file is None:
            return Done(step.name, "unchanged", step.why)
        try:
            if step.state == "equal":
                instance = self._completed(step.name, step.file.manifest.python)
                done = Done(step.name, "unchanged", step.why)
            else:
                wanted = step.file.manifest.wanted(self._settings)
                outcome = self._installer.install(step.name, wanted, parallel, step.pin)
                instance, plan = outcome.instance, outcome.build.plan
                done = Done(step.name, outcome.action, f"{plan.version} ({plan.commit[:12]})")
            if after is not None:
                after(instance)
        except LlamaMgrError as error:
            return Done(step.name, "failed", error.message, error)
        return done

    def remove(self, step: Step, running: Running) -> Done:
        """Uninstall a surplus instance; a failure is returned, not raised."""
        try:
            builds = self._installer.uninstall(step.name, running)
        except LlamaMgrError as error:
            return Done(step.name, "failed", error.message, error)
        return Done(step.name, "removed", f"with {', '.join(builds)}" if builds else step.why)

    def _step(self, file: ManifestFile, pin: Pin | None) -> Step:
        name = file.manifest.name
        try:
            instance = self._installer.instances.find_or_none(name)
            if instance is None:
                return Step(name, "missing", "there is no such instance", file, pin)
            if instance.linked is not None:
                return Step(name, "linked", f"it is linked to {instance.linked}", file, pin)
            state, why = self._compared(instance, file, pin)
        except CorruptStateError as error:
            state, why = "damaged", error.message
        return Step(name, state, why, file, pin)

    def _completed(self, name: str, python: bool) -> Instance:
        """Return the instance; where nobody said whether it wants `python`, its manifest's word is written down."""
        instances = self._installer.instances
        if instances.find(name).current.wanted.python is None:
            with self._installer.locked(name, f"sync {name}"):
                instance = instances.find(name)
                wanted = instance.current.wanted.with_usual_python(python)
                instances.point(name, instances.build_of(instance), wanted)
        return instances.find(name)

    def _compared(self, instance: Instance, file: ManifestFile, pin: Pin | None) -> tuple[State, str]:
        wanted = self._installer.settled(file.manifest.wanted(self._settings))
        current = instance.current
        was_wanted = current.wanted.with_usual_python(wanted.python)
        if was_wanted != wanted:
            return "changed", f"the manifest has another {_difference(was_wanted, wanted)}"
        try:
            builds = self._installer.builder.builds
            builds.check_sizes(builds.find(current.build_id))
        except (NotFoundError, IntegrityError) as error:
            return "damaged", error.message
        if pin is not None:
            same = current.commit == pin.commit
            return ("equal", "") if same else ("changed", f"{pin.version} ({pin.commit[:12]}) is locked")
        if not wanted.moves:
            return "equal", ""
        source = self._installer.builder.sources.locate(self._installer.source_of(wanted))
        if source.commit == current.commit:
            return "equal", ""
        return "changed", f"{wanted.branch or wanted.version} is {source.version} ({source.commit[:12]}) now"


def _difference(old: WantedBuild, new: WantedBuild) -> str:
    names = [
        field.name
        for field in msgspec.structs.fields(WantedBuild)
        if getattr(old, field.name) != getattr(new, field.name)
    ]
    return ", ".join({"recipe": "arch", "parts": "with"}.get(name, name.replace("_", "-")) for name in names)
