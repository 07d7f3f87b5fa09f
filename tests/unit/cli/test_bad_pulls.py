"""Bad inputs 60-68, 71, 73 and 80-82: what `pull` is asked for, and what hubs have.

* Row 62: an https URL is a reference when `--sha256` comes with it; without it, it is refused, too.
* Row 65: that a pull stays at its first commit is in `tests/unit/models/test_pull_commits.py`.
* Rows 80 and 82: what has come may stay, as unfinished files.
* Row 82: with --force, because the space of a download is otherwise taken before its first byte.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import mounts
from tests.tools.bad_input import Case, World, assert_refused, assert_shape, case, run
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import checkpoint, claim_size, projector, quants, shards
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

FORM = "owner/name[:quant][@rev]"
TOKEN = "hf_tok3n"
HOSTILE = ("../../.ssh/authorized_keys.gguf", "C:\\x.gguf", "a\0b.gguf")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A hub with one repository for each trouble."""
    with LocalHub() as running:
        running.tokens.add(TOKEN)
        running.add("owner/plain", {**quants("Q4_K_M", "Q4_K_S", "Q4_0"), **projector()})
        running.add("owner/gated", quants("Q4_K_M"), gated="manual")
        running.add("owner/none", checkpoint())
        whole = shards(5)
        running.add("owner/lacking", {name: whole[name] for name in whole if "00003-of" not in name})
        running.add("owner/mixed", {**whole, "tiny-Q4_K_M-00003-of-00005.gguf": model_bytes(split=(2, 5), layers=2)})
        running.add("owner/miscounted", dict(zip(shards(3), shards(5).values(), strict=False)))
        running.add("owner/big", quants("Q4_K_M"))
        claim_size(running, "owner/big", "tiny-Q4_K_M.gguf", 1 << 50, tmp_path_factory.mktemp("big"))
        running.add("owner/changed", {}).commit(quants("Q4_K_M"), listed_sha256={"tiny-Q4_K_M.gguf": "c" * 64})
        running.add("owner/portal", quants("Q4_K_M"))
        page = {"Content-Type": "text/html", "Content-Length": ""}
        running.fault(Fault(status=200, body=b"<html>Log in</html>", headers=page), part="owner/portal")
        for number, name in enumerate(HOSTILE):
            running.add(f"owner/hostile{number}", {**quants("Q4_K_M"), name: b"x"})
        yield running


@pytest.fixture
def pulling(world: World, hub: LocalHub) -> World:
    """The world, with that hub."""
    world.cli.environ = {**world.cli.environ, **hub.environ}
    return world


PULLS = [
    *[
        case(60, name, "pull", "--", text, status=2, says=FORM)
        for name, text in (
            ("empty", ""), ("slash", "/"), ("four-parts", "a/b/c/d"), ("no-name", "a//b"), ("dash", "-a/b"),
            ("no-quant", "a/b:"), ("no-revision", "a/b@"), ("space", "a b/c"), ("escape", "a\x1b/b"),
        )
    ],
    *[
        case(61, name, "pull", text, status=2, says=FORM)
        for name, text in (("leaves", "../../x/y"), ("dots", "owner/.."), ("encoded", "owner%2f..%2f"))
    ],
    *[
        case(62, name, "pull", text, status=2, says="URL")
        for name, text in (
            ("metadata", "http://169.254.169.254/latest/meta-data"), ("file", "file:///etc/passwd"),
            ("unencrypted", "http://host.invalid/x.gguf"),
        )
    ],
    case(62, "login", "pull", "https://me:tok3n@host.invalid/x.gguf", status=2, says="password"),
    case(62, "no-sha256", "pull", "https://host.invalid/x.gguf?key=tok3n", status=2, says="--sha256"),
    case(62, "bad-sha256", "pull", "https://host.invalid/x.gguf", "--sha256", "abc", status=2, says="64 hexadecimal"),
    case(63, "unknown", "pull", "owner/nothing", status=3, says=("'owner/nothing'", "HF_TOKEN")),
    case(63, "unknown-with-token", "pull", "owner/nothing", status=3, says="'owner/nothing'",
         extra=(("HF_TOKEN", TOKEN),)),
    case(63, "no-alias", "pull", "nothing-here", status=3, says=("no alias", "llama-mgr search nothing-here")),
    case(64, "gated", "pull", "owner/gated", status=7, says=("owner/gated", "HF_TOKEN")),
    case(64, "refused", "pull", "owner/gated", status=7, says="owner/gated", extra=(("HF_TOKEN", TOKEN),)),
    case(65, "revision", "pull", "owner/plain:Q4_0@nowhere", status=3, says="nowhere"),
    case(65, "bad-revision", "pull", "owner/plain:Q4_0", "--revision", "a..b", status=2, says="--revision 'a..b'"),
    case(65, "two-revisions", "pull", "owner/plain@a", "--revision", "b", status=2, says="the reference says @a"),
    case(66, "no-gguf", "pull", "owner/none", status=3,
         says=("it has README.md, config.json", "llama-mgr pull --checkpoint owner/none")),
    case(66, "no-checkpoint", "pull", "--checkpoint", "owner/plain", status=3,
         says=("no .safetensors", "tiny-Q4_0.gguf")),
    case(67, "several", "pull", "owner/plain:Q4_K", status=2,
         says=("Q4_K_M (", "Q4_K_S (", "the default among them is Q4_K_M", "llama-mgr pull owner/plain:Q4_K_M")),
    case(67, "unknown-quant", "pull", "owner/plain:Q9", status=3, says=("Q4_K_M (", "Q4_0 (")),
    *[
        case(68, f"hostile{number}", "pull", f"owner/hostile{number}", status=11, says="cannot use the file name")
        for number in range(len(HOSTILE))
    ],
    case(80, "missing", "pull", "owner/lacking", status=5, says="lacks shard 3 of 5"),
    case(81, "no-room", "pull", "owner/big", status=10,
         says=("more, and", "are free on the file system of /", "--force")),
    case(81, "no-room-elsewhere", "pull", "owner/big", "--dir", "ROOT/elsewhere/x", status=10, says="are free on"),
    case(66, "checkpoint-quant", "pull", "--checkpoint", "owner/none:Q8_0", status=2, says="no quants"),
    case(66, "include-alone", "pull", "owner/plain", "--include", "*.json", status=2, says="--checkpoint"),
    case(66, "sha256-of-checkpoint", "pull", "--checkpoint", "owner/none", "--sha256", "a" * 64, status=2,
         says="'--sha256'"),
    case(62, "url-at-revision", "pull", "https://host.invalid/x.gguf", "--revision", "main", status=2,
         says="--revision"),
    case(65, "sha256-of-others", "pull", "owner/plain:Q4_0", "--sha256", "d" * 64, status=5, says="is wanted"),
]  # fmt: skip

ARRIVALS = [
    case(71, "other-bytes", "pull", "owner/changed", status=5, says=("sha256", "cccccccccccccccc…")),
    case(73, "portal", "pull", "owner/portal", status=6, says=("127.0.0.1", "not a GGUF")),
    case(80, "mixed", "pull", "owner/mixed", status=5, says="shard 3 of 5"),
    case(80, "miscounted", "pull", "owner/miscounted", status=5, says=("shard 1 of 3", "one of 5 shards")),
]


@pytest.mark.parametrize("one", [one.parameter for one in PULLS])
def test_refused_before_the_first_byte(pulling: World, hub: LocalHub, one: Case) -> None:
    served = hub.served.total()
    assert_refused(pulling, one)
    assert hub.served.total() == served


@pytest.mark.parametrize("one", [one.parameter for one in ARRIVALS])
def test_what_arrives_wrong_never_gets_its_name(pulling: World, one: Case) -> None:
    answer = run(pulling, one)
    assert answer.status == one.status, answer.stderr
    assert_shape(answer)
    for part in one.says:
        assert part in answer.stderr, answer.stderr
    left = [path for path in pulling.home.models_dir.rglob("*") if path.is_file()]
    assert all(path.name.endswith(".part") for path in left), left
    assert one.row == 80 or not pulling.home.models_dir.exists()


def test_row_82_what_came_before_the_disk_was_full_is_kept(pulling: World, hub: LocalHub, tmp_path: Path) -> None:
    reason = mounts.no_tmpfs()
    if reason is not None:
        pytest.skip(reason)
    content = model_bytes(layers=12)
    hub.add("owner/full", {"tiny-Q4_K_M.gguf": content})
    with mounts.small_disk(tmp_path / "disk", 2400) as disk:
        answer = pulling.cli("pull", "owner/full", "--force", LLAMA_MGR_MODELS_DIR=str(disk / "models"))
        assert answer.status == 10
        assert_shape(answer)
        assert "what has come is kept" in answer.stderr
        assert "llama-mgr index prune" in answer.stderr
        assert str(disk) in answer.stderr
        (left,) = [path for path in disk.rglob("*") if path.is_file()]
        assert left.name.endswith(".part")
        assert left.read_bytes() == content[: left.stat().st_size]
        assert left.stat().st_size >= 0.8 * len(content)
        mounts.resize(disk, 65536)
        served = hub.served.total()
        pulling.cli.done("pull", "owner/full", LLAMA_MGR_MODELS_DIR=str(disk / "models"))
        assert hub.served.total() - served <= 0.3 * len(content)
        assert (disk / "models" / "owner" / "full" / "tiny-Q4_K_M.gguf").read_bytes() == content
