"""Which hub, which token."""

from pathlib import Path

import pytest

from llama_mgr.errors import BadInputError, NotFoundError, StorageError
from llama_mgr.models.hub_login import PUBLIC_ENDPOINT, endpoint_from, endpoint_trouble, login_from


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_a_blank_endpoint_is_unset(value: str) -> None:
    assert endpoint_from({"HF_ENDPOINT": value}) == PUBLIC_ENDPOINT
    assert endpoint_from({"HF_ENDPOINT": value}, "https://mirror.test/") == "https://mirror.test"


def test_the_variable_stands_before_the_setting() -> None:
    assert endpoint_from({"HF_ENDPOINT": "https://a.test/hub/ "}, "https://b.test") == "https://a.test/hub"


@pytest.mark.parametrize(
    "url",
    [
        "a.test", "ftp://a.test", "https://", "https://me:secret@a.test", "https://a.test?x=secret", "https://a.test#x",
        "https://a.test:99999", "https://a b.test", "https://a\\b.test", "https://[::1", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_an_endpoint_that_is_none_is_bad_input(url: str) -> None:
    assert endpoint_trouble(url)
    with pytest.raises(BadInputError, match="cannot use HF_ENDPOINT") as caught:
        endpoint_from({"HF_ENDPOINT": url})
    assert "secret" not in str(caught.value)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_tokens_are_looked_for_in_order(tmp_path: Path) -> None:
    setting = written(tmp_path / "setting", "hf_setting\n")
    environ = {"HOME": str(tmp_path)}
    assert login_from(environ) is None
    places = [
        ({}, setting),
        ({}, tmp_path / ".cache/huggingface/token"),
        ({"XDG_CACHE_HOME": f"{tmp_path}/xdg"}, tmp_path / "xdg/huggingface/token"),
        ({"HF_HOME": "~/hf"}, tmp_path / "hf/token"),
        ({"HF_TOKEN_PATH": "$HOME/my-token"}, tmp_path / "my-token"),
    ]
    for more, place in places:
        environ |= more
        written(place, f"hf_{place.name}\n")
        login = login_from(environ, setting)
        assert login is not None
        assert (login.token, login.place) == (f"hf_{place.name}", str(place))
    login = login_from({**environ, "HF_TOKEN": "hf_variable"}, setting)
    assert login is not None
    assert (login.token, login.place) == ("hf_variable", "HF_TOKEN")
    assert "hf_variable" not in repr(login)


def test_a_blank_variable_and_an_empty_file_are_no_token(tmp_path: Path) -> None:
    setting = written(tmp_path / "setting", "hf_setting")
    written(tmp_path / "token", "\n")
    login = login_from({"HF_TOKEN": " ", "HF_HOME": str(tmp_path)}, setting)
    assert login is not None
    assert login.place == str(setting)


@pytest.mark.parametrize("token", ["hf_a\nb", "hf_a\n", "hf a", "hf_a\r\nX: y", "hf_ä", "hf_a\0b", "x" * 1001])
def test_a_token_of_a_bad_form_is_bad_input_and_not_shown(token: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot use the token in 'HF_TOKEN'") as caught:
        login_from({"HF_TOKEN": token})
    assert token not in f"{caught.value} {caught.value.hint}"
    if token.strip() == token:
        place = written(tmp_path / "token", token)
        with pytest.raises(BadInputError, match=str(place)):
            login_from({"HF_TOKEN_PATH": str(place)})


def test_files_that_hold_no_token_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        login_from({}, tmp_path / "none")
    with pytest.raises(StorageError, match=r"cannot use HF_TOKEN_PATH: .*not a regular file"):
        login_from({"HF_TOKEN_PATH": str(tmp_path)})
    with pytest.raises(StorageError):
        login_from({}, written(tmp_path / "big", "x" * 5000))
