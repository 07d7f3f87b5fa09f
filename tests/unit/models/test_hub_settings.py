"""Settings of the hub that cannot be used."""

from pathlib import Path

import pytest

from llama_mgr.errors import BadConfigError
from llama_mgr.models.hub_settings import require_usable, setting_errors
from llama_mgr.paths import Home
from llama_mgr.settings import HubSettings, Origins, Settings


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("endpoint", "hub.test", "an http or https URL is needed"),
        ("endpoint", "ftp://hub.test", "an http or https URL is needed"),
        ("endpoint", "https://me:secret@hub.test", "it must carry no login"),
        ("endpoint", "https://hub.test/?token=secret", "it must have no query"),
        ("token-file", "token", "an absolute path is needed"),
        ("token-file", "/nonexistent/token", "there is no such file"),
        ("token-file", "/", "there is no such file"),
    ],
)
def test_a_bad_value_is_named_with_its_place(key: str, value: str, why: str, home: Home) -> None:
    settings = Settings(hub=HubSettings(**{key.replace("-", "_"): value}))
    origins = Origins(home, {})
    ((found, error),) = setting_errors(settings, origins)
    assert (found, isinstance(error, BadConfigError)) == (f"hub.{key}", True)
    assert f"{home.config_file}: hub.{key} " in error.message
    assert why in error.message
    assert "secret" not in error.message
    assert error.hint == f"llama-mgr config set hub.{key} ''"
    with pytest.raises(BadConfigError):
        require_usable(settings, origins, f"hub.{key}")


def test_good_values_are_no_error(home: Home, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_x")
    settings = Settings(hub=HubSettings("https://hub.test/mirror", str(tmp_path / "token")))
    assert list(setting_errors(settings, Origins(home, {}))) == []
    assert list(setting_errors(Settings(), Origins(home, {}))) == []
