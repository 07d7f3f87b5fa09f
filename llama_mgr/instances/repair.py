"""Mending an instance: damaged builds made again, a wrong `current` link put right."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from llama_mgr.errors import BadInputError, CorruptStateError, IntegrityError, InUseError, LlamaMgrError, NotFoundError
from llama_mgr.instances.installation import Installer, Running
from llama_mgr.instances.instance import Instance
from llama_mgr.instances.pin import Pin
from llama_mgr.report import Reporter


@dataclass(frozen=True)
class Damage:
    """What is wrong with an instance."""

    builds: Mapping[str, LlamaMgrError]
    """Build (or linked directory) to what is wrong with it; the current build comes first, earlier ones follow."""
    link: LlamaMgrError | None
    """What is wrong with the link `current`; None when it is right."""

    @property
    def first(self) -> LlamaMgrError | None:
        """The error that a check ends with; None when all is well."""
        return next(iter(self.builds.values()), self.link)


def damage(installer: Installer, name: str) -> Damage:
    """Return what is wrong with the instance `name`; every file of all its builds is hashed, earlier ones included.

    Raises:
        UnknownInstanceError: there is no such instance.
        CorruptStateError: its record is damaged, so that nobody knows what it should be.
    """
    instance = installer.instances.find(name)
    return Damage(_build_damage(installer, instance), _link_damage(installer, instance))


@dataclass
class _Attempts:
    """What a repair did, and what it could not do."""

    done: list[str] = field(default_factory=list)
    errors: list[LlamaMgrError] = field(default_factory=list)

    def attempt(self, mend: Callable[[], str | None]) -> bool:
        """Run `mend`, which returns what it did; tell whether it went well."""
        try:
            did = mend()
        except LlamaMgrError as error:
            self.errors.append(error)
            return False
        if did is not None:
            self.done.append(did)
        return True

    def raise_first(self, reporter: Reporter) -> None:
        """Raise the first error, if there is one, when all else that happened was said."""
        if not self.errors:
            return
        first, *others = self.errors
        for words in self.done:
            reporter.note(words)
        for error in others:
            reporter.warn(error.message)
            if error.hint is not None:
                reporter.note(error.hint)
        raise first


def repair(
    installer: Installer,
    name: str,
    running: Running,
    reporter: Reporter,
    parallel: int | None,
    after: Callable[[Instance], str | None] | None = None,
) -> list[str]:
    """Make the instance `name` whole again, so that it runs and can be rolled back; return what was done, in words.

    The link `current` is made to agree with the record. Each damaged build is made again from its recorded commit, the
    current one first. It stays in place until the new one is finished, so that a failure leaves what was there. What
    cannot be mended does not keep the rest from being mended. All is done under the instance's lock.

    Args:
        installer: builds.
        name: the instance.
        running: returns build id to the servers that run it now, in words.
        reporter: hears what is damaged, and what was done where an error ends the repair.
        parallel: compile jobs at once.
        after: called when the current build is whole, to mend what belongs to it; returns what it did.

    Raises:
        UnknownInstanceError, CorruptStateError: see `damage`.
        InUseError: a server or another program runs from a damaged build.
        LlamaMgrError: as `Installer.install`; the first of several, the others being said on the reporter.
    """
    attempts = _Attempts()
    with installer.locked(name, f"repair {name}"):
        found, instance = damage(installer, name), installer.instances.find(name)
        for error in found.builds.values():
            reporter.warn(error.message)
        if found.link is not None:
            attempts.attempt(partial(_linked_again, installer, instance))
        rebuilt = partial(_rebuilt, installer, name, running, reporter, parallel)
        current = instance.linked or instance.current.build_id
        is_whole = current not in found.builds or attempts.attempt(partial(rebuilt, current))
        if after is not None and is_whole:
            attempts.attempt(partial(after, installer.instances.find(name)))
        for build_id in found.builds:
            if build_id != current:
                attempts.attempt(partial(rebuilt, build_id))
    attempts.raise_first(reporter)
    return attempts.done


def _linked_again(installer: Installer, instance: Instance) -> str:
    installer.instances.repair_link(instance)
    return f"put the link {installer.instances.link_of(instance)} right"


def _rebuilt(
    installer: Installer, name: str, running: Running, reporter: Reporter, parallel: int | None, build_id: str
) -> str | None:
    instance = installer.instances.find(name)
    if instance.linked is not None:
        raise BadInputError("cannot repair", name, f"it is linked to {instance.linked}, which llama-mgr does not build")
    if build_id not in instance.build_ids():
        return None  # what the current one was made into is this build, and stands for both
    users = installer.users_of(build_id, running)
    if users:
        raise InUseError("cannot repair", name, f"{build_id} is damaged and in use: {users[0]}", hint="stop that first")
    number = instance.build_ids().index(build_id)
    pin = _pin(instance, number)
    try:
        build = installer.rebuild(name, instance.generations[number], pin, parallel)
    except NotFoundError as error:  # its local tree is gone, or its branch
        if number > 0 and error.hint is None:
            reporter.note(pin.meaning)
            error.hint = pin.mend
        raise
    if build.build_id != build_id:  # the compiler or the recipe changed since
        try:
            installer.discard_unneeded(build_id, running)
        except LlamaMgrError as error:
            reporter.warn(error.message)
    return f"built {build.build_id} again"


def _pin(instance: Instance, number: int) -> Pin:
    """Return the commit of a generation, and what helps where it is gone."""
    broken = instance.generations[number]
    if number == 0:
        mend = f"llama-mgr update {instance.name} {shlex.quote(broken.wanted.version)}"
        return Pin(broken.version, broken.commit, mend, "an update builds what it is now")
    mend = f"llama-mgr instance gc {instance.name} --keep {number}"
    return Pin(broken.version, broken.commit, mend, "the instance can forget this earlier build and those before it")


def _build_damage(installer: Installer, instance: Instance) -> dict[str, LlamaMgrError]:
    if instance.linked is not None:
        missing = not installer.instances.prefix(instance).is_dir()
        return {instance.linked: NotFoundError("cannot find the linked directory", instance.linked)} if missing else {}
    found: dict[str, LlamaMgrError] = {}
    for build_id in instance.build_ids():
        try:
            installer.instances.require_whole(instance, build_id, by_hash=True)
        except IntegrityError as error:
            found[build_id] = error
    return found


def _link_damage(installer: Installer, instance: Instance) -> LlamaMgrError | None:
    link = installer.instances.link_of(instance)
    target = installer.instances.prefix(instance)
    if link.is_symlink() and link.resolve() == target.resolve():
        return None
    why = f"it leads to {link.readlink()}, not to {target}" if link.is_symlink() else "it is not a link"
    if not link.is_symlink() and not link.exists():
        why = "it is missing"
    return CorruptStateError("cannot use", link, why, hint=f"llama-mgr instance repair {instance.name}")
