"""What is wrong with settings, as far as it takes knowing recipes, repositories, tools and caches to say so.

`config set` checks the key that it sets, and `doctor` all of them. Everybody else checks a value when it is about to
be used: a bad one stops no command that does not need it.
"""

from collections.abc import Mapping

from llama_mgr.build import cache, preflight
from llama_mgr.build.host import detect_host
from llama_mgr.build.recipe import Recipes
from llama_mgr.build.repository import repository
from llama_mgr.build.toolchain import known_tools
from llama_mgr.errors import BadConfigError, LlamaMgrError, UnknownRecipeError
from llama_mgr.settings import TOOLS, Origins, SettingCheck, SettingErrors, Settings, failed_checks, is_absolute
from llama_mgr.text import did_you_mean

_AUTO = "auto"  # the `default-arch` that is no recipe: one is chosen for the machine
_NOT_SHOWN = "***"  # it may hold a password, and what is no URL does not tell where


def require_usable(settings: Settings, origins: Origins, *keys: str) -> None:
    """Raise what is wrong with the values of `keys`, which are about to be used; tools are checked when looked for.

    Raises:
        BadConfigError, RefusedError, BadUrlError, BadInputError: one of them cannot be used; the key and the place of
            its value are named.
    """
    for key in keys:
        _CHECKS[key](settings, origins)


def setting_errors(settings: Settings, origins: Origins) -> SettingErrors:
    """Yield all that is wrong with values that have the right types and are safe."""
    yield from failed_checks(_CHECKS, settings, origins)
    yield from _tool_errors(settings, origins)


def _check_default_arch(settings: Settings, origins: Origins) -> None:
    key, name, recipes = "default-arch", settings.default_arch, Recipes(origins.home)
    if name == _AUTO:
        return
    mend = origins.mend(key, _AUTO)
    try:
        recipes.origin(name)
    except UnknownRecipeError as error:
        meant = did_you_mean(name, recipes.names())
        hint = f"{meant} otherwise: {mend}" if meant else mend
        raise BadConfigError(origins.words(key), name, "no recipe has this name", hint=hint) from error
    except LlamaMgrError as error:
        raise BadConfigError(origins.words(key), name, error.message, hint=mend) from error
    try:
        recipes.chain(name)
    except LlamaMgrError as error:
        raise BadConfigError(origins.words(key), name, error.message, hint=error.hint or mend) from error


def _check_repo_url(settings: Settings, origins: Origins) -> None:
    key, url = "source.repo-url", settings.source.repo_url
    if not url:
        return
    try:
        repository(url, allow_http=True, refusal=origins.words(key))
    except LlamaMgrError as error:
        if url.startswith("/"):
            error.hint = origins.mend(key, f"file://{url}")
        raise


def _check_package_index(settings: Settings, origins: Origins) -> None:
    key, url = "source.package-index", settings.source.package_index
    if url and not url.lower().startswith(("https://", "http://")):
        hint = origins.mend(key, "")
        raise BadConfigError(origins.words(key), _NOT_SHOWN, "an http or https URL is needed", hint=hint)


def _check_parallel(settings: Settings, origins: Origins) -> None:
    key, parallel = "build.parallel", settings.build.parallel
    if parallel is not None:
        host = detect_host(origins.environ)
        hint = origins.mend(key, str(preflight.most_jobs(host)))
        preflight.check_jobs(parallel, host, origins.words(key), hint=hint)


def _check_cache_directory(settings: Settings, origins: Origins) -> None:
    key, directory = "build.cache.directory", settings.build.cache.directory
    if directory and not is_absolute(directory):
        hint = origins.mend(key, "")
        raise BadConfigError(origins.words(key), directory, "an absolute path is needed", hint=hint)


def _check_cache_size(settings: Settings, origins: Origins) -> None:
    key, size = "build.cache.max-size", settings.build.cache.max_size
    if not cache.is_size(size):
        hint = origins.mend(key, "10G")
        raise BadConfigError(origins.words(key), size, "a size such as 10G or 500M is needed", hint=hint)


def _check_cache_remote(settings: Settings, origins: Origins) -> None:
    key, remote = "build.cache.remote", settings.build.cache.remote
    if remote and not cache.is_remote(remote):
        why, hint = "a URL such as redis://host:6379 is needed", origins.mend(key, "")
        raise BadConfigError(origins.words(key), _NOT_SHOWN, why, hint=hint)


_CHECKS: Mapping[str, SettingCheck] = {
    "default-arch": _check_default_arch,
    "source.repo-url": _check_repo_url,
    "source.package-index": _check_package_index,
    "build.parallel": _check_parallel,
    "build.cache.directory": _check_cache_directory,
    "build.cache.max-size": _check_cache_size,
    "build.cache.remote": _check_cache_remote,
}


def _tool_errors(settings: Settings, origins: Origins) -> SettingErrors:
    for name, path in settings.build.tools.items():
        if not is_absolute(path):
            key = f"{TOOLS}.{name}"
            hint = origins.mend(key, f"/usr/bin/{name}")
            yield key, BadConfigError(origins.words(key), path, "the absolute path of a program is needed", hint=hint)
    if settings.build.tools:  # reading all recipes takes its time
        yield from _unknown_tools(settings, origins)


def _unknown_tools(settings: Settings, origins: Origins) -> SettingErrors:
    try:
        known = known_tools(Recipes(origins.home))
    except LlamaMgrError:
        return  # a recipe that cannot be read may be the one that looks for the tool
    for name, path in settings.build.tools.items():
        if name not in known:
            key = f"{TOOLS}.{name}"
            words = did_you_mean(name, known) or f"the tools are {', '.join(sorted(known))}"
            hint = words if origins.set_now else f"rename or remove it: {words}"
            yield key, BadConfigError(origins.words(key), path, "no recipe uses a tool of this name", hint=hint)
