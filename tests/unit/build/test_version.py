"""What a user may type as a VERSION or as a repository URL, decided without any repository."""

from pathlib import Path

import pytest

from llama_mgr.build.repository import UPSTREAM_URL, repository, without_credentials
from llama_mgr.build.version import (
    absolute_path,
    build_number_in,
    label,
    nearest_words,
    neighbours,
    parsed_version,
    release_in,
)
from llama_mgr.errors import BadUrlError, BadVersionError, RefusedError


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("latest", "latest", 0),
        ("b11434", "build", 11434),
        ("b1", "build", 1),
        ("v0.6.0", "release", 0),
        ("v0.6.0-rc1", "name", 0),
        ("pr/123", "pull", 123),
        ("pr/0", "name", 0),
        ("master", "name", 0),
        ("gg/flash-attn", "name", 0),
        ("b0123", "name", 0),
        ("11434", "name", 0),
        ("deadbee", "name", 0),
        (".", "path", 0),
        ("..", "path", 0),
        ("~", "path", 0),
        ("./llama.cpp", "path", 0),
        ("../llama.cpp", "path", 0),
        ("~/src/llama.cpp", "path", 0),
        ("/src/llama.cpp", "path", 0),
        ("/a path with spaces", "path", 0),
    ],
)
def test_a_version_is_read_as_what_it_can_mean(text: str, kind: str, number: int) -> None:
    version = parsed_version(text)

    assert (version.kind, version.number, version.text) == (kind, number, text)


@pytest.mark.parametrize(
    "text",
    [
        "a..b", "x y", "@{", "@", "refs/heads/", "a//b", "a/.b", ".a", "a.", "a.lock", "a.lock/b", "a~1", "a^", "a:b",
        "a?", "a*", "a[b", "a\\b", "a\x7fb", "a\nb", "a\x1b[31mb", "a\x00b", "HEAD@{1}", "x" * 201,
    ],
)  # fmt: skip
def test_what_git_could_not_have_is_refused(text: str) -> None:
    with pytest.raises(BadVersionError) as caught:
        parsed_version(text)

    assert caught.value.exit_status == 2
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


def test_a_path_with_control_characters_is_refused() -> None:
    with pytest.raises(BadVersionError, match="control characters"):
        parsed_version("./a\nb")


@pytest.mark.parametrize("text", ["--upload-pack=touch /tmp/canary", "-x", "-"])
def test_a_version_that_looks_like_an_option_is_refused(text: str) -> None:
    with pytest.raises(BadVersionError, match="refs do not start with '-'"):
        parsed_version(text)


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_version_is_refused(text: str) -> None:
    with pytest.raises(BadVersionError, match="empty"):
        parsed_version(text)


@pytest.mark.parametrize(
    ("text", "may_be"),
    [("deadbee", True), ("DEADBEE", True), ("a" * 40, True), ("deadbe", False), ("a" * 41, False), ("deadbeeg", False)],
)
def test_seven_to_forty_hex_digits_may_be_a_commit(text: str, may_be: bool) -> None:
    assert parsed_version(text).may_be_commit is may_be


def test_a_build_number_is_never_taken_for_an_abbreviated_commit() -> None:
    assert not parsed_version("b1143412").may_be_commit


def test_tags_tell_their_numbers() -> None:
    assert build_number_in("b11434") == 11434
    assert build_number_in("b11434-x") == 0
    assert release_in("v0.10.2") == (0, 10, 2)
    assert release_in("v0.10.2-rc1") is None


def test_the_neighbours_of_a_number_are_the_next_below_and_above() -> None:
    assert neighbours(11420, [11549, 11401, 9000, 11434]) == [11401, 11434]
    assert neighbours(1, [5, 9]) == [5]
    assert neighbours(99, [5, 9]) == [9]
    assert neighbours(5, []) == []
    assert nearest_words([11401, 11434]) == "nearest are b11401 and b11434"
    assert nearest_words([9]) == "nearest is b9"
    assert nearest_words([]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b11434", "b11434"),
        ("gg/Fix_1", "gg-fix_1"),
        ("v0.6.0", "v0.6.0"),
        ("Größe", "gr-e"),
        ("---", "unnamed"),
        ("a" * 80, "a" * 40),
        ("../../etc", "etc"),
    ],
)
def test_a_label_can_stand_in_the_name_of_a_build(text: str, expected: str) -> None:
    assert label(text) == expected


def test_a_path_is_made_absolute_and_the_users_home_is_known(tmp_path: Path) -> None:
    assert absolute_path("~/x", str(tmp_path)) == tmp_path / "x"
    assert absolute_path("~", str(tmp_path)) == tmp_path
    assert absolute_path(str(tmp_path / "a" / ".." / "b"), "/") == tmp_path / "b"


# -- repository URLs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://example.invalid/a/llama.cpp", "https"),
        ("HTTPS://example.invalid/a/llama.cpp", "https"),
        ("https://example.invalid:8443/a/llama.cpp.git", "https"),
        ("ssh://git@example.invalid/a/llama.cpp", "ssh"),
        ("ssh://example.invalid:22/a/llama.cpp", "ssh"),
        ("git@example.invalid:a/llama.cpp.git", "ssh"),
        ("file:///srv/git/llama.cpp.git", "file"),
    ],
)
def test_repositories_may_be_https_ssh_or_files(url: str, protocol: str) -> None:
    assert repository(url).protocol == protocol


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/canary", "EXT::sh -c id", "fd::17", "-u./x", "--upload-pack=touch /tmp/canary",
        "git://example.invalid/x", "ftp://example.invalid/x", "ftps://example.invalid/x", "rsync://example.invalid/x",
        "git+ssh://example.invalid/x", "javascript:alert(1)", "https:/example.invalid/x", "/srv/git/x", "./x", "", "x",
        "-oProxyCommand=id@host:x", "host:path", "ext::file:///x", "data:text/plain,x",
    ],
)  # fmt: skip
def test_other_protocols_are_refused_and_the_allowed_ones_named(url: str) -> None:
    with pytest.raises(RefusedError, match="https://, ssh://, git@host:path and file://") as caught:
        repository(url)

    assert caught.value.exit_status == 11


def test_a_local_path_gets_the_spelling_that_works() -> None:
    with pytest.raises(RefusedError) as caught:
        repository("/srv/git/x")

    assert caught.value.hint == "for a local repository: --repo-url file:///srv/git/x"


def test_plain_http_needs_a_flag() -> None:
    with pytest.raises(RefusedError) as caught:
        repository("http://example.invalid/x")

    assert "--allow-http" in (caught.value.hint or "")
    assert repository("http://example.invalid/x", allow_http=True).protocol == "http"


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@example.invalid/x", "https://hunter2@example.invalid/x",
        "https://user:hunter2@example.invalid", "ssh://user:hunter2@example.invalid/x",
        "https://a@b:hunter2@example.invalid/x", "https://example.invalid/x?private_token=hunter2",
        "https://example.invalid/x#hunter2",
    ],
)  # fmt: skip
def test_credentials_in_urls_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadUrlError) as caught:
        repository(url)

    assert caught.value.exit_status == 2
    assert "hunter2" not in caught.value.message + (caught.value.hint or "")
    assert "hunter2" not in without_credentials(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://", "https:///x", "https://example.invalid", "https://example.invalid/", "https://exa mple.invalid/x",
        "https://example.invalid/x\ny", "https://example.invalid/\x1b[31m", "https://[::1/x", "https://h:99999999/x",
        "https://h:port/x", "file://host/x", "file:///", "file://x", "ssh://-oProxyCommand=id/x", "ssh:///x",
        "ssh://-x@h/x", "git@h:a b", "https://h/" + "x" * 2000,
    ],
)  # fmt: skip
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(BadUrlError) as caught:
        repository(url)

    assert "\x1b" not in caught.value.message


def test_spellings_of_one_repository_share_a_mirror_and_others_do_not() -> None:
    first = repository("https://example.invalid/a/llama.cpp")

    assert repository("https://EXAMPLE.invalid/a/llama.cpp.git").name == first.name
    assert repository("https://example.invalid/a/llama.cpp/").name == first.name
    assert repository("https://example.invalid/b/llama.cpp").name != first.name
    assert first.name.startswith("llama.cpp-")
    assert repository(UPSTREAM_URL).name == "llama.cpp"
    assert repository(f"{UPSTREAM_URL}.git").is_upstream
