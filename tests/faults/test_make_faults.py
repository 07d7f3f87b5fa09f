"""Making, killed at any time or on full disks: no part is ever listed, and the same command ends with equal files."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import mounts
from tests.faults.arena import NEW, Arena, Templates
from tests.faults.conftest import SEED, amount
from tests.faults.makes import MakeSweep, unrecorded, visible
from tests.tools.checkpoints import write_checkpoint

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

_NETWORK = ("SSL_CERT_", "PIP_", "UV_")
_ROOM = re.compile(r"needs about [\d.]+ \w+, and [\d.]+ \w+ are free on the file system of (\S+)")


@pytest.fixture
def bench(tmp_path: Path, templates: Templates) -> Arena:
    """An arena with an instance of all tools, a converter that has its Python environment, and a checkpoint."""
    arena = Arena(tmp_path / "arena", templates.url)
    network = {name: value for name, value in os.environ.items() if name.startswith(_NETWORK)}
    done = arena.run("install", "base", NEW, "--repo-url", templates.url, "--arch", "cpu", **network)
    assert done.status == 0, done
    write_checkpoint(arena.user_dir / "small-llama")
    return arena


def make_words(arena: Arena) -> tuple[str, ...]:
    quants = ("--quants", "Q8_0,Q6_K,Q4_K_M,IQ4_XS", "--imatrix", "auto")
    return ("make", str(arena.user_dir / "small-llama"), *quants, "--evaluate", "-c", "64")


def test_killed_at_any_time_it_ends_with_the_same_files(bench: Arena) -> None:
    report = MakeSweep(bench, make_words(bench)).random_kills(amount(8, 200) or 0, SEED)
    print(report)
    assert report.fired > 0
    assert not report.findings, str(report)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk for models."""
    reason = mounts.no_tmpfs()
    if reason is not None:
        pytest.skip(reason)
    with mounts.small_disk(tmp_path / "disk", 64 << 10) as directory:
        yield directory / "models"


@pytest.mark.parametrize("free_kib", [0, 4, 16, 40, 64, 128, 512, 1024] if amount(0, 1) else [0, 16, 64, 512])
def test_a_full_disk_is_one_clear_error_and_no_file(bench: Arena, disk: Path, free_kib: int) -> None:
    there = {"LLAMA_MGR_MODELS_DIR": str(disk)}
    source = str(bench.user_dir / "small-llama")
    done = bench.run("convert", source, **there)
    assert done.status == 0, done
    mounts.resize(disk.parent, mounts.used_kib(disk.parent) + free_kib)
    for words in (("quantize", "small-llama:F16", "Q8_0", "Q4_0"), ("convert", source, "--name", "me/other")):
        refused = bench.run(*words, **there)
        assert refused.status == 10, refused
        assert _ROOM.search(refused.stderr), refused
        forced = bench.run(*words, "--force", **there)
        assert forced.status in {0, 10}, forced  # it may fit after all: what is kept free is a margin
        if forced.status == 10:
            found = _ROOM.search(forced.stderr)
            assert found[1] == str(disk.parent) if found else "o space" in forced.stderr, forced
        assert unrecorded(disk) == []
        assert not list(disk.rglob(".import-*"))
        listed = bench.run("list", "--json", **there)
        assert json.loads(listed.stdout).get("broken", []) == []
    mounts.resize(disk.parent, 64 << 10)
    assert bench.run("quantize", "small-llama:F16", "Q8_0", "Q4_0", **there).status == 0


def test_two_at_once_do_the_work_once(bench: Arena) -> None:
    words = make_words(bench)
    children = [bench.start(*words, "--json") for _ in range(2)]
    answers = [child.communicate(timeout=110) for child in children]
    assert [child.returncode for child in children] == [0, 0], answers
    assert len(visible(bench.home / "models")) == 6
    assert unrecorded(bench.home / "models") == []
    assert not list((bench.home / "models").rglob(".import-*"))
    assert not list((bench.home / "models").rglob(".*.new"))
