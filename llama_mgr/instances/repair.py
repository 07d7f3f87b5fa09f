"""Mending an instance: a damaged build made again, a wrong `current` link put right."""

from dataclasses import dataclass

from llama_mgr.errors import BadInputError, CorruptStateError, IntegrityError, InUseError, LlamaMgrError, NotFoundError
from llama_mgr.instances.installation import Installer, Running
from llama_mgr.instances.instance import Instance
from llama_mgr.report import Reporter


@dataclass(frozen=True)
class Damage:
    """What is wrong with an instance; None where all is well."""

    build: LlamaMgrError | None
    link: LlamaMgrError | None

    @property
    def first(self) -> LlamaMgrError | None:
        """The error that a check ends with."""
        return self.build or self.link


def damage(installer: Installer, name: str) -> Damage:
    """Return what is wrong with the instance `name`; every file of its build is hashed.

    Raises:
        UnknownInstanceError: there is no such instance.
        CorruptStateError: its record is damaged, so that nobody knows what it should be.
    """
    instance = installer.instances.find(name)
    return Damage(_build_damage(installer, instance), _link_damage(installer, instance))


def repair(installer: Installer, name: str, running: Running, reporter: Reporter, parallel: int | None) -> list[str]:
    """Make the instance `name` whole again; return what was done, in words.

    A damaged build is made again from the recorded commit. It stays in place until the new one is finished, so that a
    failure leaves what was there. The link `current` is made to agree with the record. All is done under the instance's
    lock.

    Raises:
        UnknownInstanceError, CorruptStateError: see `damage`.
        InUseError: a server or another program runs from the damaged build.
        LlamaMgrError: as `Installer.install`.
    """
    done = []
    instances = installer.instances
    with installer.locked(name, f"repair {name}"):
        found = damage(installer, name)
        if found.build is not None:
            reporter.warn(found.build.message)
            done.append(_rebuilt(installer, name, running, reporter, parallel))
        instance = instances.find(name)
        if _link_damage(installer, instance) is not None:
            instances.repair_link(instance)
            done.append(f"current points at {instances.prefix(instance)}")
    return done


def _rebuilt(installer: Installer, name: str, running: Running, reporter: Reporter, parallel: int | None) -> str:
    instance = installer.instances.find(name)
    if instance.linked is not None:
        raise BadInputError("cannot repair", name, f"it is linked to {instance.linked}, which llama-mgr does not build")
    broken = instance.current
    users = installer.users_of(broken.build_id, running)
    if users:
        raise InUseError("cannot repair", name, users[0], hint="stop that first")
    build = installer.rebuild(name, parallel)
    if build.build_id != broken.build_id:  # the compiler or the recipe changed since
        installer.instances.forget_build(name, broken.build_id)
        try:
            installer.discard_unneeded(broken.build_id, running)
        except LlamaMgrError as error:
            reporter.warn(error.message)
    return f"built {build.build_id} again"


def _build_damage(installer: Installer, instance: Instance) -> LlamaMgrError | None:
    builds = installer.builder.builds
    if instance.linked is not None:
        missing = not installer.instances.prefix(instance).is_dir()
        return NotFoundError("cannot find the linked directory", instance.linked) if missing else None
    try:
        builds.check_hashes(builds.find(instance.current.build_id))
    except NotFoundError:
        return CorruptStateError(
            "cannot use the instance",
            instance.name,
            f"its build {instance.current.build_id} is missing or has no record",
            hint=f"llama-mgr instance repair {instance.name}",
        )
    except IntegrityError as error:
        error.hint = f"llama-mgr instance repair {instance.name}"
        return error
    return None


def _link_damage(installer: Installer, instance: Instance) -> LlamaMgrError | None:
    link = installer.instances.link_of(instance)
    target = installer.instances.prefix(instance)
    if link.is_symlink() and link.resolve() == target.resolve() and target.is_dir():
        return None
    why = f"it leads to {link.readlink()}, not to {target}" if link.is_symlink() else "it is not a link"
    if not link.is_symlink() and not link.exists():
        why = "it is missing"
    return CorruptStateError("cannot use", link, why, hint=f"llama-mgr instance repair {instance.name}")
