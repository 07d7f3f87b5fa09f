"""What install, update, uninstall and gc do: builds made or found, then names pointed at them under their locks."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from llama_mgr import locks, store
from llama_mgr.build import use
from llama_mgr.build.arch import choose_arch
from llama_mgr.build.builder import Builder, Prepared, Request
from llama_mgr.build.host import detect_host
from llama_mgr.build.record import BuildRecord
from llama_mgr.build.source import Wanted
from llama_mgr.build.version import parsed_version
from llama_mgr.errors import BadInputError, BusyError, CorruptStateError, InUseError, UnknownInstanceError
from llama_mgr.instances.choice import forget_default, offer_default
from llama_mgr.instances.damaged import builds_in_doubt
from llama_mgr.instances.instance import LOCK_TIMEOUT_S, Generation, Instance, Instances, WantedBuild, linked_error
from llama_mgr.instances.pin import Pin
from llama_mgr.names import checked_name
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.settings import Settings

AUTO_ARCH = "auto"
Running = Callable[[], Mapping[str, Collection[str]]]
"""Returns build id to the servers that run it at that moment, in words."""


@dataclass(frozen=True)
class Outcome:
    """What an install or update did."""

    instance: Instance
    build: BuildRecord
    action: Literal["built", "reused", "unchanged"]
    """`built`: compiled now; `reused`: an equal build existed; `unchanged`: the instance was this build already."""
    became_default: bool
    took_s: float


class Installer:
    """Installs, updates and removes instances of a home."""

    def __init__(self, home: Home, settings: Settings, environ: Mapping[str, str], reporter: Reporter) -> None:
        self._home = home
        self._settings = settings
        self._environ = environ
        self._reporter = reporter
        self.builder = Builder(home, settings, environ, reporter)
        self.instances = Instances(home)

    def source_of(self, wanted: WantedBuild) -> Wanted:
        """Return the part of `wanted` that says which source."""
        return _request_of(wanted).wanted

    def prepare(self, wanted: WantedBuild, pin: Pin | None = None) -> Prepared:
        """Find the source (exactly at `pin`) and resolve the recipe; nothing is built. Raises as `Builder.prepare`."""
        if pin is None:
            return self.builder.prepare(_request_of(wanted))
        return pin.checked(self.builder.prepare(_request_of(pin.applied_to(wanted))))

    def settled(self, wanted: WantedBuild) -> WantedBuild:
        """Return `wanted` as it is remembered: true in every directory, and on this machine for ever.

        A path is made absolute, `~` being the user's home; `auto` becomes the recipe that suits this machine, said on
        the reporter.
        """
        if parsed_version(wanted.version).kind == "path":
            home_dir = self._environ.get("HOME", "/")
            typed = home_dir + wanted.version[1:] if wanted.version.startswith("~") else wanted.version
            wanted = msgspec.structs.replace(wanted, version=str(Path(os.path.abspath(typed))))  # noqa: PTH100 (links stay)
        if wanted.recipe != AUTO_ARCH:
            return wanted
        choice = choose_arch(self._environ, detect_host(self._environ))
        self._reporter.note(f"--arch auto chose '{choice.recipe}': {choice.why}")
        return msgspec.structs.replace(wanted, recipe=choice.recipe)

    def install(
        self, name: str | None, wanted: WantedBuild, parallel: int | None = None, pin: Pin | None = None
    ) -> Outcome:
        """Make the instance `name` (None derives `b11434-cpu`) be a build of `wanted`, exactly at `pin` if given.

        An instance that was something else keeps that as an earlier generation. Nothing changes on failure.

        Raises:
            BadNameError, NameTakenError: the name cannot be used.
            IntegrityError: the pinned version is another commit now.
            NameTakenError: it is a linked instance.
            LlamaMgrError: whatever `Builder.prepare` and `Builder.build` raise.
        """
        started = time.monotonic()
        if name is not None:
            checked_name(name, taken=self.instances.names())
        wanted = self.settled(wanted)
        if name is None:
            prepared = self.prepare(wanted, pin)
            return self._installed_as(checked_name(prepared.plan.flavour), wanted, prepared, parallel, started)
        return self._installed_as(name, wanted, None, parallel, started, pin=pin)

    def update(
        self, name: str, version: str | None = None, parallel: int | None = None, *, ignore_python: bool = False
    ) -> Outcome:
        """Make `name` the newest version (or `version`) of what it is, with the same recipe and options.

        The old build stays, and stays current if anything fails.

        Args:
            name: the instance.
            version: what it becomes.
            parallel: compile jobs at once.
            ignore_python: from now on the converter gets no Python environment.

        Raises:
            UnknownInstanceError: there is no such instance.
            BadInputError: it is a linked directory, which has no version to update to.
        """
        started = time.monotonic()
        instance = self.instances.find(name)
        if instance.linked is not None:
            raise BadInputError(
                "cannot update", name, f"it is linked to {instance.linked}, which llama-mgr does not build"
            )
        wanted = instance.current.wanted
        if version is not None:
            wanted = _at_version(wanted, version)
        elif not wanted.moves:
            wanted = msgspec.structs.replace(wanted, version="latest")
        if ignore_python:
            wanted = msgspec.structs.replace(wanted, python=False)
        return self._installed_as(name, self.settled(wanted), None, parallel, started, must_exist=True)

    def _installed_as(
        self,
        name: str,
        wanted: WantedBuild,
        prepared: Prepared | None,
        parallel: int | None,
        started: float,
        *,
        must_exist: bool = False,
        pin: Pin | None = None,
    ) -> Outcome:
        with self.locked(name, f"install {name} ({wanted.version}, {wanted.recipe})"):
            before, damage = self._existing(name)
            if must_exist and before is None:
                raise damage or UnknownInstanceError("no instance has the name", name)
            if before is not None and before.linked is not None:
                raise linked_error(before)  # before minutes of compiling
            prepared = prepared or self.prepare(wanted, pin)
            with self._claimed(prepared.plan.build_id, f"install {name}"):
                found = self.builder.finished(prepared)
                build, was_built = (found, False) if found else self.builder.build(prepared, parallel)
                unchanged = before is not None and before.build_ids()[:1] == [build.build_id]
                if damage is not None:
                    self._move_aside(name, damage)
                instance = self.instances.point(name, build, wanted)
            became_default = offer_default(self._home, name, self._reporter)
        action: Literal["built", "reused", "unchanged"] = (
            "built" if was_built else "unchanged" if unchanged else "reused"
        )
        return Outcome(instance, build, action, became_default, time.monotonic() - started)

    def rebuild(self, name: str, broken: Generation, pin: Pin, parallel: int | None = None) -> BuildRecord:
        """Make the build of a generation of `name` again, from its commit; the caller holds the instance's lock.

        The build that is there stays until the new one is whole. Nothing is compiled when all its files turn out to be
        sound. Another compiler or recipe than then gives another build, which takes its place among the generations.

        Args:
            name: the instance.
            broken: one of its generations.
            pin: its commit, and what helps where its source is another one now, so that this cannot.
            parallel: compile jobs at once.

        Raises:
            LlamaMgrError: as `install`; nothing changed.
        """
        prepared = self.prepare(broken.wanted, pin)
        with self._claimed(prepared.plan.build_id, f"repair {name}"):
            build, _ = self.builder.build(prepared, parallel, by_hash=True)
            self.instances.replace_build(name, broken.build_id, build)
        return build

    def _existing(self, name: str) -> tuple[Instance | None, CorruptStateError | None]:
        """Return the instance that has the name, or what is wrong with its record.

        Installing over a damaged record is how a user mends it.
        """
        try:
            return self.instances.find_or_none(name), None
        except CorruptStateError as error:
            return None, error

    def _move_aside(self, name: str, damage: CorruptStateError) -> None:
        aside = store.move_aside(self._home.instances_dir / f"{name}.json")
        self._reporter.warn(f"{damage.message}; it was moved to {aside}; its builds stay until you delete that file")

    def uninstall(self, name: str, running: Running, *, force: bool = False) -> list[str]:
        """Remove the instance `name` and those of its builds that nothing else needs; return the removed build ids.

        Args:
            name: the instance.
            running: returns build id to the servers that run it now, in words.
            force: remove the name although somebody runs its build; the build stays until that ends.

        Raises:
            UnknownInstanceError: there is no such instance.
            InUseError: a server or another program runs from one of its builds.
            RefusedError: a directory of it was not made by llama-mgr.
        """
        with self.locked(name, f"uninstall {name}"):
            try:
                own = self.instances.find(name).build_ids()
            except CorruptStateError:
                own = []  # a damaged record still can be removed; its builds are left to gc
            except UnknownInstanceError:
                if not self.instances.is_half_removed(name):
                    raise
                own = []  # an uninstall was killed after its commit; this one finishes it
            users = [user for build_id in own for user in self.users_of(build_id, running)]
            if users and not force:
                raise InUseError("cannot uninstall", name, users[0], hint="stop that first, or use --force")
            needed = self._needed(running, without=name)
            builds = self.builder.builds
            doomed = [one for one in own if one not in needed and os.path.lexists(builds.directory(one))]
            self.instances.require_removable(name)
            for build_id in doomed:
                self.builder.builds.require_ours(build_id)
            # Before the commit, lest a kill leave a default that does not exist; and after it, for a `use` in between.
            forget_default(self._home, name, self._reporter)
            self.instances.remove_record(name)
            forget_default(self._home, name, self._reporter)
            removed = [build_id for build_id in doomed if self._discarded(build_id, running)]
            self.instances.remove(name)  # last, so that a killed uninstall can be repeated
            return removed

    def users_of(self, build_id: str, running: Running) -> list[str]:
        """Return who runs a program of a build now, in words."""
        program = use.user_of(self._home, build_id)
        return [*(f"{server} runs it" for server in running().get(build_id, ())), *([program] if program else [])]

    def unneeded_builds(self, running: Running) -> list[str]:
        """Return the builds that no instance and no running server needs."""
        needed = self._needed(running)
        return [build_id for build_id in self.builder.builds.ids() if build_id not in needed]

    def discard_unneeded(self, build_id: str, running: Running) -> bool:
        """Delete a build unless an instance or server needs it, or an install is about to; tell whether it was deleted.

        Raises:
            InUseError: a program runs from it, or a damaged record may need it.
            RefusedError: the directory was not made by llama-mgr.
            CorruptStateError: an instance's record is damaged, so nobody knows what it needs.
        """
        try:
            purpose = f"delete {build_id}"
            # Servers are looked for when no program can start any more, not before.
            with self._claimed(build_id, purpose, exclusively=True), use.unused(self._home, build_id, purpose):
                if build_id in self._needed(running):
                    return False
                self.require_undoubted(build_id)
                self.builder.builds.discard(build_id)
        except BusyError:
            return False
        return True

    def require_undoubted(self, build_id: str) -> None:
        """Raise an InUseError when a damaged record that was moved aside may need a build."""
        record = builds_in_doubt(self._home, [build_id]).get(build_id)
        if record is not None:
            why = f"the damaged record {record} may need it"
            raise InUseError("cannot delete", build_id, why, hint=f"delete {record} if you are sure")

    def _discarded(self, build_id: str, running: Running) -> bool:
        try:
            return self.discard_unneeded(build_id, running)
        except InUseError as error:
            self._reporter.note(f"{error.message}; `llama-mgr instance gc` deletes it later")
            return False

    def _claimed(self, build_id: str, purpose: str, *, exclusively: bool = False) -> AbstractContextManager[None]:
        """Hold the claim on the builds of a plan.

        Installs hold it shared from before they look for a finished build until their instance points at it. Deletion
        holds it alone while it looks who needs the build and moves it away; it does not wait for installs.
        """
        digest = build_id.rpartition("-")[2]  # one plan may have builds under several labels
        timeout_s = 0 if exclusively else LOCK_TIMEOUT_S
        return locks.held_lock(
            self._home, f"claim-{digest}", purpose, self._reporter, timeout_s, shared=not exclusively
        )

    def _needed(self, running: Running, without: str | None = None) -> set[str]:
        kept = {build_id for build_id, servers in running().items() if servers}
        for name in self.instances.names():
            if name != without:
                # A damaged record stops this: better than losing the builds that it named.
                instance = self.instances.find_or_none(name)  # another uninstall may have been faster
                kept.update(instance.build_ids() if instance else ())
        return kept

    def locked(self, name: str, purpose: str) -> AbstractContextManager[None]:
        """Hold the lock of the instance `name`; waiting is said on the reporter."""
        return self.instances.locked(name, purpose, self._reporter)


def _request_of(wanted: WantedBuild) -> Request:
    source = Wanted(
        version=wanted.version,
        repo_url=wanted.repo_url,
        branch=wanted.branch,
        kind=wanted.source,
        allow_http=wanted.allow_http,
    )
    return Request(source, wanted.recipe, tuple(wanted.parts), wanted.defines, tuple(wanted.targets))


def _at_version(wanted: WantedBuild, version: str) -> WantedBuild:
    """Return `wanted` at another VERSION; what only made sense for the old one goes."""
    kind = parsed_version(version).kind
    wanted = msgspec.structs.replace(wanted, version=version, branch=None)
    if kind == "path":
        return msgspec.structs.replace(wanted, repo_url=None, source="auto")
    if wanted.source == "snapshot" and kind not in {"latest", "build"}:  # the package index knows only these
        return msgspec.structs.replace(wanted, source="auto")
    return wanted
