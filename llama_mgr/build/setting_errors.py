"""What is wrong with settings, as far as it takes knowing recipes, repositories, tools and caches to say so."""

from llama_mgr.build import cache, preflight
from llama_mgr.build.host import Host
from llama_mgr.build.recipe import Recipes
from llama_mgr.build.repository import repository
from llama_mgr.build.toolchain import known_tools
from llama_mgr.errors import BadConfigError, LlamaMgrError, UnknownRecipeError
from llama_mgr.settings import TOOLS, Origins, SettingErrors, Settings
from llama_mgr.text import did_you_mean, nearest

_AUTO = "auto"  # the `default-arch` that is no recipe: one is chosen for the machine
_NOT_SHOWN = "***"  # it may hold a password, and what is no URL does not tell where


def setting_errors(settings: Settings, origins: Origins, host: Host | None = None) -> SettingErrors:
    """Yield what is wrong with values that have the right types.

    Args:
        settings: the values.
        origins: where they come from; the home's own recipes count.
        host: the machine that `build.parallel` must suit. None leaves that to the build, for --parallel overrides it.
    """
    yield from _source_errors(settings, origins)
    yield from _cache_errors(settings, origins)
    recipes = Recipes(origins.home)
    yield from _recipe_errors(settings, origins, recipes)
    yield from _tool_errors(settings, origins, recipes)
    if host is not None and settings.build.parallel is not None:
        yield from _parallel_errors(settings.build.parallel, origins, host)


def _source_errors(settings: Settings, origins: Origins) -> SettingErrors:
    source = settings.source
    if source.repo_url:
        key = "source.repo-url"
        try:
            repository(source.repo_url, allow_http=True, refusal=origins.words(key))
        except LlamaMgrError as error:
            if source.repo_url.startswith("/"):
                error.hint = origins.mend(key, f"file://{source.repo_url}")
            yield key, error
    if source.package_index and not source.package_index.lower().startswith(("https://", "http://")):
        key = "source.package-index"
        hint = origins.mend(key, "")
        yield key, BadConfigError(origins.words(key), _NOT_SHOWN, "an http or https URL is needed", hint=hint)


def _cache_errors(settings: Settings, origins: Origins) -> SettingErrors:
    wanted = settings.build.cache
    if not cache.is_size(wanted.max_size):
        key = "build.cache.max-size"
        hint = origins.mend(key, "10G")
        yield key, BadConfigError(origins.words(key), wanted.max_size, cache.SIZE_FORM, hint=hint)
    if wanted.remote and not cache.is_remote(wanted.remote):
        key = "build.cache.remote"
        hint = origins.mend(key, "")
        yield key, BadConfigError(origins.words(key), _NOT_SHOWN, cache.REMOTE_FORM, hint=hint)


def _recipe_errors(settings: Settings, origins: Origins, recipes: Recipes) -> SettingErrors:
    key, name = "default-arch", settings.default_arch
    if name == _AUTO:
        return
    try:
        recipes.chain(name)
    except LlamaMgrError as error:
        is_unknown = isinstance(error, UnknownRecipeError)
        why = "no recipe has this name" if is_unknown else error.message
        hint = origins.mend(key, nearest(name, recipes.names()) or _AUTO)
        yield key, BadConfigError(origins.words(key), name, why, hint=hint)


def _tool_errors(settings: Settings, origins: Origins, recipes: Recipes) -> SettingErrors:
    if not settings.build.tools:
        return  # reading all recipes takes its time
    known = known_tools(recipes)
    for name, path in settings.build.tools.items():
        if name not in known:
            key = f"{TOOLS}.{name}"
            words = did_you_mean(name, known) or f"the tools are {', '.join(sorted(known))}"
            hint = words if origins.set_now else f"rename or remove it: {words}"
            yield key, BadConfigError(origins.words(key), path, "no recipe uses a tool of this name", hint=hint)


def _parallel_errors(parallel: int, origins: Origins, host: Host) -> SettingErrors:
    key = "build.parallel"
    hint = origins.mend(key, str(preflight.most_jobs(host)))
    try:
        preflight.checked_jobs(parallel, host, origins.variable(key) or key, hint=hint)
    except LlamaMgrError as error:
        yield key, error
