"""What is wrong with the settings of the hub. They are checked like those of builds: see `build.setting_errors`."""

from collections.abc import Mapping
from pathlib import Path

from llama_mgr.errors import BadConfigError
from llama_mgr.models.hub_login import endpoint_trouble
from llama_mgr.settings import Origins, SettingCheck, SettingErrors, Settings, failed_checks, is_absolute
from llama_mgr.text import without_secrets


def require_usable(settings: Settings, origins: Origins, *keys: str) -> None:
    """Raise what is wrong with the values of `keys`, which are about to be used.

    Raises:
        BadConfigError: one of them cannot be used; the key and the place of its value are named.
    """
    for key in keys:
        _CHECKS[key](settings, origins)


def setting_errors(settings: Settings, origins: Origins) -> SettingErrors:
    """Yield all that is wrong with values that have the right types."""
    yield from failed_checks(_CHECKS, settings, origins)


def _check_endpoint(settings: Settings, origins: Origins) -> None:
    key, endpoint = "hub.endpoint", settings.hub.endpoint
    why = endpoint_trouble(endpoint) if endpoint else None
    if why:
        raise BadConfigError(origins.words(key), without_secrets(endpoint), why, hint=origins.mend(key, ""))


def _check_token_file(settings: Settings, origins: Origins) -> None:
    key, path = "hub.token-file", settings.hub.token_file
    if path and not is_absolute(path):
        raise BadConfigError(origins.words(key), path, "an absolute path is needed", hint=origins.mend(key, ""))
    if path and not Path(path).is_file():
        raise BadConfigError(origins.words(key), path, "there is no such file", hint=origins.mend(key, ""))


_CHECKS: Mapping[str, SettingCheck] = {
    "hub.endpoint": _check_endpoint,
    "hub.token-file": _check_token_file,
}
