"""What is wrong with the state on disk, and the command that mends each thing. Nothing is changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_mgr import locks, staging
from llama_mgr.build.recipe import Recipes
from llama_mgr.build.record import BuildRecord, Builds
from llama_mgr.errors import LlamaMgrError, NewerStateError
from llama_mgr.instances.choice import default_name
from llama_mgr.instances.damaged import SIGN
from llama_mgr.instances.instance import Instance, Instances
from llama_mgr.names import is_name
from llama_mgr.paths import Home
from llama_mgr.text import printable

_COLLECT = "llama-mgr instance gc"
_BY_HAND = "look at it, and delete it by hand if you are sure"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be."""

    what: str
    where: str
    mend: str
    """A command, or what to do in words."""
    is_damage: bool = True
    """False for what only takes room or attention; nothing is broken by it."""


@dataclass(frozen=True)
class HeldLock:
    """A lock that a living process holds."""

    name: str
    holder: str
    """Who, since when and for what, in words."""


def problems(home: Home, *, with_hashes: bool = False) -> list[Problem]:
    """Return all that is wrong below `home`; what a running command works on just now is passed over.

    Args:
        home: whose state.
        with_hashes: also compare the sha256 of every file of every build; otherwise presence and sizes.
    """
    builds = Builds(home)
    check = builds.check_hashes if with_hashes else builds.check_sizes
    damaged = {build_id: error for build_id in builds.ids() if (error := _build_error(builds, build_id, check))}
    return [
        *_leftovers(home),
        *_instance_problems(home, damaged),
        *_build_problems(home, damaged),
        *_default_problems(home),
        *_recipe_problems(home),
    ]


def held_locks(home: Home) -> list[HeldLock]:
    """Return the locks that living processes hold now."""
    files = sorted(home.locks_dir.glob("*.lock")) if home.locks_dir.is_dir() else []
    return [HeldLock(file.stem, locks.holder_words(file)) for file in files if locks.is_locked(file)]


def _leftovers(home: Home) -> Iterator[Problem]:
    for directory in staging.stale_staging(home):
        yield Problem("unfinished work of a process that died", str(directory), _COLLECT, is_damage=False)
    for entry in _entries(home.trash_dir):
        yield Problem("rubbish that was not deleted", str(entry), _COLLECT, is_damage=False)
    for entry in _entries(home.instances_dir):
        if SIGN in entry.name:
            yield Problem("a damaged record that was moved aside", str(entry), f"rm {entry}", is_damage=False)


def _instance_problems(home: Home, damaged: dict[str, LlamaMgrError]) -> Iterator[Problem]:
    instances = Instances(home)
    names = instances.names()
    for name in names:
        if not _is_busy(home, name):
            yield from _problems_of(instances, name, home, damaged)
    for entry in _entries(home.instances_dir):
        is_instance_dir = entry.is_dir() and not entry.is_symlink() and is_name(entry.name)
        if is_instance_dir and entry.name not in names and not _is_busy(home, entry.name):
            yield Problem("the directory of an instance that is gone", str(entry), _COLLECT, is_damage=False)


def _problems_of(instances: Instances, name: str, home: Home, damaged: dict[str, LlamaMgrError]) -> Iterator[Problem]:
    try:
        instance = instances.find(name)
    except LlamaMgrError as error:
        mend = f"llama-mgr install {name} (the record is moved aside), or llama-mgr uninstall {name}"
        yield Problem(error.message, str(home.instances_dir / f"{name}.json"), _mend_of(error, mend))
        return
    if instance.linked is None:
        yield from _generation_problems(instance, home, damaged)
    elif not Path(instance.linked).is_dir():
        what = f"the instance '{name}' is linked to a directory that is gone"
        yield Problem(what, instance.linked, f"llama-mgr uninstall {name}")
    if instance.linked is not None or instance.generations:
        yield from _link_problems(instances, instance)


def _generation_problems(instance: Instance, home: Home, damaged: dict[str, LlamaMgrError]) -> Iterator[Problem]:
    repair = f"llama-mgr instance repair {instance.name}"
    if not instance.generations:
        yield Problem(
            f"the instance '{instance.name}' names no build", instance.name, f"llama-mgr uninstall {instance.name}"
        )
        return
    existing = Builds(home).ids()
    for number, build_id in enumerate(instance.build_ids()):
        place = str(home.builds_dir / build_id)
        generation = "build" if number == 0 else "earlier build"
        if build_id not in existing:
            yield Problem(f"the {generation} of the instance '{instance.name}' is missing", place, repair)
        elif build_id in damaged:
            error = damaged[build_id]
            yield Problem(f"{generation} of '{instance.name}': {error.message}", place, _mend_of(error, repair))


def _link_problems(instances: Instances, instance: Instance) -> Iterator[Problem]:
    link, target = instances.link_of(instance), instances.prefix(instance)
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    state = "leads elsewhere" if link.is_symlink() else "is not a link" if link.exists() else "is missing"
    what = f"'current' of the instance '{instance.name}' {state}"
    yield Problem(what, str(link), f"llama-mgr instance repair {instance.name}")


def _build_problems(home: Home, damaged: dict[str, LlamaMgrError]) -> Iterator[Problem]:
    """Yield damaged builds that no instance names; `_instance_problems` has the others."""
    needed = {build_id for instance in Instances(home) for build_id in instance.build_ids()}
    for build_id, error in damaged.items():
        if build_id not in needed:
            yield Problem(error.message, str(home.builds_dir / build_id), _mend_of(error, _removal(home, build_id)))


def _removal(home: Home, build_id: str) -> str:
    try:
        Builds(home).require_ours(build_id)
    except LlamaMgrError:
        return _BY_HAND
    return _COLLECT


def _build_error(builds: Builds, build_id: str, check: Callable[[BuildRecord], None]) -> LlamaMgrError | None:
    try:
        check(builds.find(build_id))
    except LlamaMgrError as error:
        return error if builds.directory(build_id).is_dir() else None  # it may have been removed meanwhile
    return None


def _default_problems(home: Home) -> Iterator[Problem]:
    where = str(home.root)
    try:
        default = default_name(home)
    except LlamaMgrError as error:
        yield Problem(error.message, where, _mend_of(error, "llama-mgr use NAME"))
        return
    if default is not None and default not in Instances(home).names():
        yield Problem(f"the default instance '{printable(default)}' does not exist", where, "llama-mgr use NAME")


def _recipe_problems(home: Home) -> Iterator[Problem]:
    """Yield the user's recipes that cannot be used."""
    recipes = Recipes(home)
    for file in sorted(home.recipes_dir.glob("*.toml")) if home.recipes_dir.is_dir() else []:
        try:
            recipe = recipes.find(file.stem)
            if not (recipe.hidden or recipe.part):
                recipes.chain(file.stem)
        except LlamaMgrError as error:
            yield Problem(
                error.message,
                str(file),
                error.hint or "edit it; recipes/README.md and `llama-mgr recipe show` tell the keys",
            )


def _mend_of(error: LlamaMgrError, usual: str) -> str:
    return "upgrade llama-mgr" if isinstance(error, NewerStateError) else usual


def _is_busy(home: Home, name: str) -> bool:
    return locks.is_locked(locks.lock_file(home, f"instance-{name}"))


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []
