"""Mending an instance: damaged builds made again, a wrong `current` link put right."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from llama_mgr.errors import BadInputError, CorruptStateError, IntegrityError, InUseError, LlamaMgrError, NotFoundError
from llama_mgr.instances.installation import Installer, Running
from llama_mgr.instances.instance import Instance
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


def repair(installer: Installer, name: str, running: Running, reporter: Reporter, parallel: int | None) -> list[str]:
    """Make the instance `name` whole again, so that it runs and can be rolled back; return what was done, in words.

    Each damaged build is made again from its recorded commit. It stays in place until the new one is finished, so that
    a failure leaves what was there. The link `current` is made to agree with the record. All is done under the
    instance's lock.

    Raises:
        UnknownInstanceError, CorruptStateError: see `damage`.
        BadInputError: `parallel` is out of range.
        InUseError: a server or another program runs from a damaged build.
        LlamaMgrError: as `Installer.install`.
    """
    installer.builder.check_parallel(parallel)
    instances = installer.instances
    with installer.locked(name, f"repair {name}"):
        done = []
        for build_id, error in damage(installer, name).builds.items():
            reporter.warn(error.message)
            done.append(_rebuilt(installer, name, build_id, running, reporter, parallel))
        instance = instances.find(name)
        if _link_damage(installer, instance) is not None:
            instances.repair_link(instance)
            done.append(f"current points at {instances.prefix(instance)}")
    return done


def _rebuilt(
    installer: Installer, name: str, build_id: str, running: Running, reporter: Reporter, parallel: int | None
) -> str:
    instance = installer.instances.find(name)
    if instance.linked is not None:
        raise BadInputError("cannot repair", name, f"it is linked to {instance.linked}, which llama-mgr does not build")
    users = installer.users_of(build_id, running)
    if users:
        raise InUseError("cannot repair", name, f"{build_id} is damaged and in use: {users[0]}", hint="stop that first")
    number = instance.build_ids().index(build_id)
    broken = instance.generations[number]
    mend = f"llama-mgr instance gc --keep {number} (forgets that earlier build)"
    if number == 0:
        mend = f"llama-mgr update {name} {shlex.quote(broken.wanted.version)} (builds what it is now)"
    build = installer.rebuild(name, broken, mend, parallel)
    if build.build_id != build_id:  # the compiler or the recipe changed since
        try:
            installer.discard_unneeded(build_id, running)
        except LlamaMgrError as error:
            reporter.warn(error.message)
    return f"built {build.build_id} again"


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
    if link.is_symlink() and link.resolve() == target.resolve() and target.is_dir():
        return None
    why = f"it leads to {link.readlink()}, not to {target}" if link.is_symlink() else "it is not a link"
    if not link.is_symlink() and not link.exists():
        why = "it is missing"
    return CorruptStateError("cannot use", link, why, hint=f"llama-mgr instance repair {instance.name}")
