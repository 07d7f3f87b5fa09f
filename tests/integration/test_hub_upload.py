"""Uploads to a hub that runs here, over real HTTP: what is on it afterwards, whatever happened on the way."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_mgr.download import HttpClient, Patience
from llama_mgr.errors import (
    BadInputError,
    BadReferenceError,
    ConflictError,
    HashMismatchError,
    LlamaMgrError,
    RefusedError,
    RemoteDeniedError,
    RemoteError,
    UnknownRepositoryError,
)
from llama_mgr.models.hub import Hub
from llama_mgr.models.hub_upload import CARD_MARK, FILE_LIMIT_BYTES, Uploaded, Uploader, UploadFile
from llama_mgr.models.pull import Puller
from llama_mgr.models.reference import HubRef
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

REPO = "me/tiny-GGUF"
NAMES = ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf")
CARD = f'---\nlibrary_name: "gguf"\n---\n\n{CARD_MARK}\n\n# tiny\n'
PATIENCE = Patience(tries=2, first_delay_s=0.01, stall_s=5)
HASTE = Patience(tries=2, first_delay_s=0.01, stall_s=0.3)
PUT = "/lfs/"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def local() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def files(tmp_path: Path) -> list[UploadFile]:
    return [
        written(tmp_path / name, model_bytes(quant=name[5:-5], seed=number) + bytes(200_000))
        for number, name in enumerate(NAMES)
    ]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def upload(local: LocalHub, files: list[UploadFile], listener: Listener) -> Callable[..., Uploaded]:
    def done(
        *some: UploadFile, card: str = CARD, private: bool = False, repo: str = REPO, patience: Patience = PATIENCE,
        **environ: str,
    ) -> Uploaded:  # fmt: skip
        variables = {**local.environ, "HF_TOKEN": "hf_good", **environ}
        uploader = Uploader(Hub(variables, listener, patience), listener)
        return uploader.upload(repo, some or files, card, private=private, message="Add quants")

    return done


def written(path: Path, content: bytes) -> UploadFile:
    path.write_bytes(content)
    return UploadFile(path, path.name, hashlib.sha256(content).hexdigest())


def on_hub(local: LocalHub, repo: str = REPO) -> dict[str, bytes]:
    found = local.repos[repo]
    return {
        name: b"".join(file.chunks(1 << 20))
        for name, file in found.commits[found.branches["main"]].items()
        if name != ".gitattributes"
    }


def commits(local: LocalHub) -> int:
    return len(local.repos[REPO].commits)


def wanted(files: list[UploadFile], card: str = CARD) -> dict[str, bytes]:
    return {"README.md": card.encode(), **{file.name_in_repo: file.path.read_bytes() for file in files}}


def refused(upload: Callable[..., Uploaded], *some: UploadFile, **how: object) -> LlamaMgrError:
    with pytest.raises(LlamaMgrError) as caught:
        upload(*some, **how)
    return caught.value


# -- what an upload brings ---------------------------------------------------------------------------------------------


def test_a_new_repository_has_all_files_and_the_card_in_one_commit(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded], listener: Listener
) -> None:
    done = upload()
    repo = local.repos[REPO]
    assert on_hub(local) == wanted(files)
    assert (commits(local), repo.private) == (2, False)  # the one that made it, and ours
    assert (done.url, done.commit) == (f"{local.url}/{REPO}", repo.branches["main"])
    assert (done.sent, done.already_there) == (NAMES, ())
    assert done.sent_bytes == sum(file.path.stat().st_size for file in files)
    assert repo.messages == {done.commit: "Add quants"}
    assert listener.bars == [f"{verb} {name}" for name in NAMES for verb in ("check", "upload")]


def test_what_was_uploaded_can_be_pulled(
    home: Home, local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    plain = [written(file.path, model_bytes(quant=file.path.stem[5:])) for file in files]
    upload(*plain)
    pulled = Puller(home, Hub(local.environ, Listener()), Listener()).pull(HubRef("me", "tiny-GGUF", quant="Q8_0"))
    assert [file.read_bytes() for file in pulled.files] == [plain[1].path.read_bytes()]


def test_the_same_upload_again_sends_nothing_and_makes_no_commit(
    local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    first, received = upload(), dict(local.store.received)
    again = upload()
    assert (again.commit, again.sent, again.already_there, again.sent_bytes) == (first.commit, (), NAMES, 0)
    assert (dict(local.store.received), commits(local)) == (received, 2)


def test_only_what_is_new_is_sent_and_other_files_stay(
    local: LocalHub, files: list[UploadFile], tmp_path: Path, upload: Callable[..., Uploaded]
) -> None:
    upload()
    more = written(tmp_path / "tiny-F16.gguf", b"GGUF" + bytes(5000))
    done = upload(files[0], more, card=CARD + "more")
    assert (done.sent, done.already_there, done.sent_bytes) == (("tiny-F16.gguf",), NAMES[:1], 5004)
    assert on_hub(local) == wanted([*files, more], CARD + "more")


def test_a_file_that_changed_is_replaced(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    upload()
    other = written(files[0].path, b"GGUF" + bytes(777))
    assert upload(other, files[1]).sent == NAMES[:1]
    assert on_hub(local)[NAMES[0]] == b"GGUF" + bytes(777)


def test_large_files_go_in_parts(local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]) -> None:
    local.store.part_bytes = 60_000
    done = upload()
    size_bytes = files[0].path.stat().st_size
    parts = [one for one in local.seen("storage", files[0].sha256) if one.method == "PUT"]
    assert size_bytes % 60_000 > 0, "the last part must be a shorter one"
    assert [int(one.header("Content-Length") or 0) for one in parts] == [
        min(60_000, size_bytes - start) for start in range(0, size_bytes, 60_000)
    ]
    assert on_hub(local) == wanted(files)
    assert done.sent_bytes == sum(file.path.stat().st_size for file in files)


def test_a_hub_that_wants_a_small_file_in_the_commit_gets_it_there(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.store.regular.add(NAMES[0])
    done = upload()
    assert on_hub(local) == wanted(files)
    assert (done.sent, done.sent_bytes) == (NAMES, sum(file.path.stat().st_size for file in files))
    assert upload().already_there == NAMES


def test_a_private_repository_is_made_private(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    upload(private=True)
    assert local.repos[REPO].private
    assert upload(private=True).sent == ()


# -- the card ----------------------------------------------------------------------------------------------------------


def test_a_readme_of_somebody_else_stays_and_that_is_said(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded], listener: Listener
) -> None:
    local.add(REPO, {"README.md": b"# mine"})
    upload()
    assert on_hub(local) == {**wanted(files), "README.md": b"# mine"}
    assert listener.notes == [f"{REPO} has a README.md that llama-mgr did not write; it stays as it is"]


def test_a_readme_in_other_letters_counts_as_one(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    local.add(REPO, {"readme.md": b"# mine"})
    upload()
    assert set(on_hub(local)) == {"readme.md", *NAMES}


def test_our_own_card_is_replaced_in_the_same_commit(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    upload()
    upload(card=CARD + "\nmore\n")
    assert on_hub(local)["README.md"].endswith(b"\nmore\n")
    assert commits(local) == 3


def test_a_card_that_the_hub_does_not_accept_is_found_before_anything_is_sent(
    local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    error = refused(upload, card=CARD.replace("---\n\n", 'license: "made-up"\n---\n\n'))
    assert isinstance(error, BadInputError)
    assert '"license" must be one of' in error.message
    assert not local.store.received
    assert commits(local) == 1


# -- who may, and where ------------------------------------------------------------------------------------------------


def test_without_a_login_nothing_is_asked(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    error = refused(upload, HF_TOKEN="")
    assert isinstance(error, RemoteDeniedError)
    assert error.exit_status == 7
    assert "hf auth login" in str(error.hint)
    assert "HF_TOKEN" in str(error.hint)
    assert not local.requests


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_wrong", "token"), ("hf_reader", "the hub forbids it: You don't have the required permissions")],
)
def test_a_token_that_is_wrong_or_may_not_write_is_refused(
    token: str, words: str, local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    local.add(REPO, {})
    error = refused(upload, HF_TOKEN=token)
    assert isinstance(error, RemoteDeniedError)
    assert words in error.message
    assert token not in error.message + str(error.hint)
    assert not local.store.received


def test_a_repository_that_may_not_be_made_is_a_denial(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    error = refused(upload, HF_TOKEN="hf_reader")
    assert isinstance(error, RemoteDeniedError)
    assert REPO not in local.repos


def test_the_token_goes_to_the_hub_and_never_to_the_storage(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    local.store.part_bytes = 60_000
    upload()
    posts = [one for one in local.seen("hub") if one.method == "POST"]
    assert {one.header("Authorization") for one in posts} == {"Bearer hf_good"}
    stored = local.seen("storage")
    assert {one.method for one in stored} == {"PUT"}
    assert not any("hf_good" in str(one.headers) for one in stored)
    assert not any("hf_good" in one.path for one in local.requests)


def test_a_token_does_not_go_over_an_open_network(upload: Callable[..., Uploaded]) -> None:
    error = refused(upload, HF_ENDPOINT="http://hub.example.invalid")
    assert isinstance(error, RemoteDeniedError)
    assert "without encryption" in error.message


def test_offline_means_that_nothing_is_asked(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    assert "HF_HUB_OFFLINE" in refused(upload, HF_HUB_OFFLINE="1").message
    assert not local.requests


def test_a_public_repository_is_no_place_for_what_shall_be_private(
    local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    local.add(REPO, {})
    error = refused(upload, private=True)
    assert isinstance(error, RefusedError)
    assert "everybody can see it" in error.message
    assert not local.store.received


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("http://169.254.169.254", RefusedError),
        ("http://user@127.0.0.1:9", RefusedError),
        ("ftp://127.0.0.1", RefusedError),
        ("file:///etc", RemoteError),  # the library leaves a path of it
    ],
)
def test_a_place_that_is_not_safe_gets_no_file(
    place: str, kind: type[LlamaMgrError], local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    local.store.place = place
    assert isinstance(refused(upload), kind)
    assert not local.seen("storage")
    assert commits(local) == 1


@pytest.mark.parametrize("led_from", ["https://hub.example.invalid", "http://192.0.2.1"])
def test_no_hub_elsewhere_leads_a_file_inside_or_into_the_open(led_from: str, local: LocalHub) -> None:
    client = HttpClient({}, Listener())
    with client.session(led_from) as session, pytest.raises(RefusedError):
        session.put(f"{local.storage_url}/lfs/x", data=b"secret")
    assert not local.requests


def test_a_storage_that_sends_on_is_not_followed(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    local.fault(Fault(status=307, headers={"Location": f"{local.url}/elsewhere"}), part=PUT)
    assert "sends on to another address" in refused(upload).message
    assert not local.seen(part="elsewhere")


def test_a_repository_that_moved_is_not_followed(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    local.add(REPO, {})
    local.fault(Fault(status=307, headers={"Location": f"{local.url}/api/other"}), origin="hub", part="preupload")
    error = refused(upload)
    assert isinstance(error, UnknownRepositoryError)
    assert "new name" in str(error.hint)


@pytest.mark.parametrize("repo", ["tiny", "a/b/c", "me/..", ""])
def test_what_is_no_name_is_not_sent(repo: str, local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    assert isinstance(refused(upload, repo=repo), BadReferenceError)
    assert not local.store.received


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_too_large_is_refused_with_what_to_do(
    tmp_path: Path, local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:
        file.truncate(FILE_LIMIT_BYTES + 1)
    error = refused(upload, UploadFile(large, "large.gguf", "0" * 64))
    assert isinstance(error, BadInputError)
    assert "50 GB" in error.message
    assert "llama-mgr split" in str(error.hint)
    assert not local.requests


def test_a_file_that_is_not_what_was_recorded_is_not_sent(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    files[1].path.write_bytes(b"GGUF, but another one")
    error = refused(upload)
    assert isinstance(error, HashMismatchError)
    assert NAMES[1] in error.message
    assert set(local.store.received) == {files[0].sha256}
    assert commits(local) == 1


def test_a_file_that_is_written_to_while_it_is_sent_is_found_out(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.store.is_blind, local.bytes_per_s = True, 200_000

    def disturb() -> None:
        while not local.seen("storage"):
            time.sleep(0.01)
        with files[0].path.open("r+b") as file:
            file.seek(100_000)
            file.write(b"other")

    thread = threading.Thread(target=disturb)
    thread.start()
    error = refused(upload)
    thread.join()
    assert isinstance(error, HashMismatchError)
    assert "somebody wrote to it" in error.message
    assert not local.seen("hub", "verify")
    assert commits(local) == 1


def test_a_missing_file_is_said_before_anything_is_asked(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    files[1].path.unlink()
    assert refused(upload).exit_status == 10
    assert not local.requests


@pytest.mark.parametrize("name", ["../evil.gguf", "/abs.gguf", "a//b.gguf", "TINY-q8_0.gguf", ".git/hooks"])
def test_names_that_are_not_safe_are_refused(
    name: str, local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    bad = UploadFile(files[0].path, name, files[0].sha256)
    assert isinstance(refused(upload, files[1], bad), RefusedError | BadInputError)
    assert commits(local) == 1


# -- faults ------------------------------------------------------------------------------------------------------------

ONCE = (
    ("cut while sending", Fault(cut_after=100_000), "storage", PUT),
    ("reset by the storage", Fault(reset=True), "storage", PUT),
    ("hung up on by the hub", Fault(hang_up=True), "hub", "batch"),
    ("stalled while sending", Fault(stall_after=100_000), "storage", PUT),
    ("an error of the storage", Fault(status=503), "storage", PUT),
    ("too many requests", Fault(status=429, headers={"Retry-After": "0"}), "hub", "preupload"),
    ("an error while the card is looked at", Fault(status=500), "hub", "validate-yaml"),
    ("an error while it is made", Fault(hang_up=True), "hub", "repos/create"),
    ("an error before the commit", Fault(hang_up=True), "hub", "/commit/"),
    ("an error after the commit", Fault(status=502), "hub", "/commit/"),
    ("an error of the check", Fault(status=504), "hub", "verify"),
)


@pytest.mark.parametrize("part_bytes", [None, 120_000])
@pytest.mark.parametrize(("fault", "origin", "part"), [one[1:] for one in ONCE], ids=[one[0] for one in ONCE])
def test_one_fault_is_got_over(
    fault: Fault, origin: str, part: str, part_bytes: int | None, local: LocalHub, files: list[UploadFile],
    upload: Callable[..., Uploaded],
) -> None:  # fmt: skip
    local.store.part_bytes = part_bytes
    local.fault(fault, origin=origin, part=part, times=1)
    done = upload(patience=HASTE if fault.stall_after else PATIENCE)
    assert on_hub(local) == wanted(files)
    assert (commits(local), done.commit) == (2, local.repos[REPO].branches["main"])


@pytest.mark.parametrize(("fault", "origin", "part"), [one[1:] for one in ONCE], ids=[one[0] for one in ONCE])
def test_a_lasting_fault_is_an_error_and_the_next_call_finishes(
    fault: Fault, origin: str, part: str, local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.fault(fault, origin=origin, part=part)
    error = refused(upload, patience=HASTE if fault.stall_after else PATIENCE)
    assert isinstance(error, RemoteError)
    assert error.exit_status == 6
    local.mend()
    assert upload().url.endswith(REPO)
    assert on_hub(local) == wanted(files)
    assert commits(local) == 2


def test_what_arrived_before_an_error_is_not_sent_again(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.fault(Fault(status=403), part=files[1].sha256)
    error = refused(upload)
    assert "127.0.0.1, where it is to be stored, answered 403" in error.message
    assert commits(local) == 1
    local.mend()
    done = upload()
    assert (done.sent, done.already_there) == (NAMES[1:], NAMES[:1])
    assert local.store.received[files[0].sha256] == files[0].path.stat().st_size
    assert on_hub(local) == wanted(files)


def test_a_storage_that_kept_other_bytes_is_found_out(local: LocalHub, upload: Callable[..., Uploaded]) -> None:
    local.store.is_blind = True
    take = local.store.take
    local.store.take = lambda signature, chunks: take(signature, (b"x" * len(one) for one in chunks))  # type: ignore[method-assign]
    error = refused(upload)
    assert "not the announced one" in error.message
    assert commits(local) == 1


def test_somebody_elses_commit_meanwhile_is_not_lost(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.add(REPO, {"a.txt": b"a"})
    post = local.fault_for

    def meddle(seen: object) -> Fault | None:
        if "/lfs/verify" in getattr(seen, "path", "") and commits(local) == 1:
            local.repos[REPO].commit({"a.txt": b"a", "README.md": b"# theirs"})
        return post(seen)  # type: ignore[arg-type]

    local.fault_for = meddle  # type: ignore[method-assign]
    error = refused(upload)
    assert isinstance(error, ConflictError)
    assert on_hub(local) == {"a.txt": b"a", "README.md": b"# theirs"}
    done = upload()
    assert (done.sent, on_hub(local)) == ((), {**wanted(files), "a.txt": b"a", "README.md": b"# theirs"})


def test_a_file_that_a_gitignore_names_is_not_passed_over_in_silence(
    local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    local.store.ignored.add(NAMES[0])
    error = refused(upload)
    assert isinstance(error, HashMismatchError)
    assert ".gitignore" in error.message


def test_a_file_that_the_hub_does_not_take_is_named_with_its_reason(
    local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.store.unwanted.add(files[1].sha256)
    assert "this file is not wanted here" in refused(upload).message
    assert commits(local) == 1


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"objects": 7}', b'{"objects": [{"oid": "a", "size": 1, "actions": {"upload": 7}}]}',
     b'{"objects": [{"oid": "a", "size": 1, "actions": {"upload": {"href": "http://127.0.0.1:9/"}}}]}', b"{" * 200_000],
)  # fmt: skip
def test_an_answer_without_sense_is_a_remote_error(
    body: bytes, local: LocalHub, upload: Callable[..., Uploaded]
) -> None:
    local.fault(Fault(body=body), origin="hub", part="objects/batch")
    assert isinstance(refused(upload), RemoteError)


@pytest.mark.parametrize(
    "header", [{"chunk_size": "0"}, {"chunk_size": "-1"}, {"chunk_size": "x"}, {"chunk_size": "9"}]
)
def test_parts_without_sense_are_a_remote_error(
    header: dict[str, str], local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.store.actions = lambda *_: {"upload": {"href": f"{local.url}/x", "header": header}}  # type: ignore[method-assign]
    assert isinstance(refused(upload, files[0]), RemoteError)


# -- a process of its own ----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from llama_mgr.models.hub import Hub
from llama_mgr.models.hub_upload import Uploader, UploadFile
from llama_mgr.report import SilentReporter
endpoint, repo, *words = sys.argv[1:]
files = [UploadFile(Path(path), Path(path).name, sha256) for path, sha256 in zip(words[::2], words[1::2])]
hub = Hub({"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_good"}, SilentReporter())
Uploader(hub, SilentReporter()).upload(repo, files, "# x", private=False, message="m")
"""


MEASURED = f"{PROGRAM}\nfrom tests.tools.peak_memory import peak_bytes\nprint(peak_bytes())"


def command(local: LocalHub, files: list[UploadFile], program: str = PROGRAM) -> list[str]:
    words = [word for file in files for word in (str(file.path), file.sha256)]
    return [sys.executable, "-c", program, local.url, REPO, *words]


def peak_of(local: LocalHub, file: UploadFile) -> int:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return int(subprocess.run(command(local, [file], MEASURED), env=environ, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("part_bytes", [None, 15_000_000])
def test_memory_does_not_grow_with_the_file(part_bytes: int | None, local: LocalHub, tmp_path: Path) -> None:
    local.store.part_bytes = part_bytes
    large = written(tmp_path / "large.gguf", b"GGUF" + bytes(100_000_000))
    small = written(tmp_path / "small.gguf", b"GGUF")
    grown = peak_of(local, large) - peak_of(local, small)
    assert grown < 10_000_000
    assert local.store.received[large.sha256] == 100_000_004


def test_what_the_library_would_do_by_itself_it_does_not(local: LocalHub, files: list[UploadFile]) -> None:
    surroundings = {
        "PATH": os.environ["PATH"], "HF_TOKEN": "hf_environment", "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DISABLE_PROGRESS_BARS": "0", "HF_HUB_DISABLE_XET": "0", "TQDM_POSITION": "-1",
    }  # fmt: skip
    for file in (files[:1], files):
        answer = subprocess.run(command(local, file), env=surroundings, capture_output=True, timeout=60, check=False)
        assert (answer.returncode, answer.stdout, answer.stderr) == (0, b"", b"")
        local.repos.clear()  # so that all that is stored is offered again
    assert "hf_environment" not in str([one.headers for one in local.requests])
    assert not local.seen(part="xet")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_upload_made_no_commit_and_the_next_one_sends_the_rest(
    sent: signal.Signals, local: LocalHub, files: list[UploadFile], upload: Callable[..., Uploaded]
) -> None:
    local.bytes_per_s = 300_000
    process = subprocess.Popen(command(local, files), env={"PATH": os.environ["PATH"]}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while local.store.received[files[1].sha256] < 50_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sent)
    at = time.monotonic()
    assert process.wait(timeout=30) != 0
    assert time.monotonic() - at < 2
    assert commits(local) == 1
    local.bytes_per_s = None
    assert upload().sent == NAMES[1:]
    assert on_hub(local) == wanted(files)
