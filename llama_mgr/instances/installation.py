"""What install, update, uninstall and gc do: builds made or found, then names pointed at them under their locks."""

import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import msgspec

from llama_mgr import store
from llama_mgr.build.arch import choose_arch
from llama_mgr.build.builder import Builder, Prepared, Request
from llama_mgr.build.host import detect_host
from llama_mgr.build.record import BuildRecord
from llama_mgr.build.source import Wanted
from llama_mgr.errors import BadInputError, CorruptStateError, InUseError, NotFoundError, UnknownInstanceError
from llama_mgr.instances.choice import default_name, forget_default, set_default
from llama_mgr.instances.instance import Instance, Instances, WantedBuild
from llama_mgr.names import checked_name
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.settings import Settings

AUTO_ARCH = "auto"
LOCK_TIMEOUT_S = 24 * 3600.0  # a waiting install waits for a whole build


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

    def prepare(self, wanted: WantedBuild) -> Prepared:
        """Find the source and resolve the recipe of `wanted`; nothing is built. Raises as `Builder.prepare`."""
        return self.builder.prepare(_request_of(wanted))

    def with_arch(self, wanted: WantedBuild) -> WantedBuild:
        """Return `wanted` with `auto` replaced by the recipe that suits this machine, saying why."""
        if wanted.recipe != AUTO_ARCH:
            return wanted
        choice = choose_arch(self._environ, detect_host(self._environ))
        self._reporter.note(f"--arch auto chose '{choice.recipe}': {choice.why}")
        return msgspec.structs.replace(wanted, recipe=choice.recipe)

    def install(self, name: str | None, wanted: WantedBuild, parallel: int | None = None) -> Outcome:
        """Make the instance `name` (None derives `b11434-cpu`) be a build of `wanted`.

        An instance that was something else keeps that as an earlier generation. Nothing changes on failure.

        Raises:
            BadNameError, NameTakenError: the name cannot be used.
            LlamaMgrError: whatever `Builder.prepare` and `Builder.build` raise.
        """
        started = time.monotonic()
        if name is not None:
            checked_name(name, taken=self.instances.names())
        wanted = self.with_arch(wanted)
        if name is None:
            prepared = self.prepare(wanted)
            return self._installed_as(checked_name(prepared.plan.flavour), wanted, prepared, parallel, started)
        return self._installed_as(name, wanted, None, parallel, started)

    def update(self, name: str, version: str | None = None, parallel: int | None = None) -> Outcome:
        """Make `name` the newest version (or `version`) of what it is, with the same recipe and options.

        The old build stays, and stays current if anything fails.

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
        wanted = msgspec.structs.replace(wanted, version=version or _newest_of(wanted))
        return self._installed_as(name, wanted, None, parallel, started, must_exist=True)

    def _installed_as(
        self,
        name: str,
        wanted: WantedBuild,
        prepared: Prepared | None,
        parallel: int | None,
        started: float,
        *,
        must_exist: bool = False,
    ) -> Outcome:
        with self.locked(name, f"install {name} ({wanted.version}, {wanted.recipe})"):
            before = self._existing(name)
            if must_exist and before is None:
                raise UnknownInstanceError("no instance has the name", name)
            prepared = prepared or self.prepare(wanted)
            found = self.builder.finished(prepared)
            build = found or self.builder.build(prepared, parallel)
            unchanged = (
                before is not None and before.generations[:1] != [] and before.current.build_id == build.build_id
            )
            instance = self.instances.point(name, build, wanted)
            became_default = default_name(self._home) is None
            if became_default:
                set_default(self._home, name)
        action: Literal["built", "reused", "unchanged"] = "unchanged" if unchanged else "reused" if found else "built"
        return Outcome(instance, build, action, became_default, time.monotonic() - started)

    def _existing(self, name: str) -> Instance | None:
        try:
            return self.instances.find_or_none(name)
        except CorruptStateError as error:
            # Installing over a damaged record is how a user mends it: the record is moved aside, never overwritten.
            aside = store.move_aside(self._home.instances_dir / f"{name}.json")
            self._reporter.warn(f"{error.message}; it was moved to {aside}")
            return None

    def uninstall(self, name: str, running: Mapping[str, Collection[str]], *, force: bool = False) -> list[str]:
        """Remove the instance `name` and those of its builds that nothing else needs; return the removed build ids.

        Args:
            name: the instance.
            running: build id to the names of servers that run it.
            force: remove the name although a server runs its build; the build stays until that server ends.

        Raises:
            UnknownInstanceError: there is no such instance.
            InUseError: a server runs one of its builds.
            RefusedError: a directory of it was not made by llama-mgr.
        """
        with self.locked(name, f"uninstall {name}"):
            try:
                own = self.instances.find(name).build_ids()
            except CorruptStateError:
                own = []  # a damaged record still can be removed; its builds are left to gc
            servers = [server for build_id in own for server in running.get(build_id, ())]
            if servers and not force:
                raise InUseError(
                    "cannot uninstall",
                    name,
                    f"the server '{servers[0]}' runs it",
                    hint="stop the server first, or use --force",
                )
            needed = self._needed(running, without=name)
            doomed = [build_id for build_id in own if build_id not in needed and build_id in self.builder.builds.ids()]
            self.instances.require_removable(name)
            for build_id in doomed:
                self.builder.builds.require_ours(build_id)
            self.instances.remove(name)
            forget_default(self._home, name)
            for build_id in doomed:
                self.builder.builds.discard(build_id)
        return doomed

    def unneeded_builds(self, running: Mapping[str, Collection[str]]) -> list[str]:
        """Return the builds that no instance and no running server needs."""
        needed = self._needed(running)
        return [build_id for build_id in self.builder.builds.ids() if build_id not in needed]

    def _needed(self, running: Mapping[str, Collection[str]], without: str | None = None) -> set[str]:
        kept = {build_id for build_id, servers in running.items() if servers}
        for name in self.instances.names():
            if name != without:
                kept.update(
                    self.instances.find(name).build_ids()
                )  # a damaged record stops gc: better than losing builds
        return kept

    def locked(self, name: str, purpose: str) -> AbstractContextManager[None]:
        """Hold the lock of the instance `name`; waiting is said on the reporter."""
        return store.held_lock(self._home, f"instance-{name}", purpose, self._reporter, LOCK_TIMEOUT_S)


def _request_of(wanted: WantedBuild) -> Request:
    source = Wanted(
        version=wanted.version,
        repo_url=wanted.repo_url,
        branch=wanted.branch,
        kind=wanted.source,
        allow_http=wanted.allow_http,
    )
    return Request(source, wanted.recipe, tuple(wanted.parts), wanted.defines, tuple(wanted.targets))


def _newest_of(wanted: WantedBuild) -> str:
    """Return the version that `update` asks for: moving things again, fixed ones become `latest`."""
    moves = wanted.branch is not None or wanted.version.startswith("pr/") or "/" in wanted.version
    return wanted.version if moves else "latest"
