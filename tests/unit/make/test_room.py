"""Room on the disk: asked before the work, and told when a program failed for lack of it. The disk is the real one."""

from pathlib import Path

import pytest

from llama_mgr.errors import NoSpaceError
from llama_mgr.make import room
from llama_mgr.make.room import require_room, require_was_not_full, written_bytes
from llama_mgr.models.disk_space import mount_point
from llama_mgr.store import free_bytes
from tests.tools.model_library import put

MIB, TIB = 1024**2, 1024**4


def test_work_that_fits_may_begin(tmp_path: Path) -> None:
    require_room("quantize", "x", tmp_path, 0)
    require_room("quantize", "x", tmp_path / "not/yet/there", MIB)


def test_work_that_does_not_fit_is_refused_with_need_room_and_file_system(tmp_path: Path) -> None:
    needed_bytes = free_bytes(tmp_path) + 1024 * TIB
    with pytest.raises(NoSpaceError, match=r"cannot quantize 'x.gguf': it needs about 10\d\d\.\d TiB, and ") as caught:
        require_room("quantize", "x.gguf", tmp_path / "not/there", needed_bytes)
    assert caught.value.message.endswith(f"are free on the file system of {mount_point(tmp_path)}")
    assert caught.value.hint is not None
    assert all(words in caught.value.hint for words in ("llama-mgr rm", "index prune", "--output", "--force"))
    require_room("quantize", "x.gguf", tmp_path, needed_bytes, force=True)


def test_a_margin_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed_bytes = 128 * MIB
    least_bytes = needed_bytes + 9 * MIB  # 8 MiB, and one part of 128
    for free, fits in ((least_bytes, True), (least_bytes - 1, False)):
        monkeypatch.setattr(room, "free_bytes", lambda _, free=free: free)
        if fits:
            require_room("quantize", "x", tmp_path, needed_bytes)
        else:
            with pytest.raises(NoSpaceError, match=r"needs about 137\.0 MiB, and 137\.0 MiB are free"):
                require_room("quantize", "x", tmp_path, needed_bytes)


def test_a_program_that_failed_on_a_full_disk_is_told_from_others(tmp_path: Path) -> None:
    require_was_not_full("quantize", "x", tmp_path, MIB, 0)
    require_was_not_full("quantize", "x", tmp_path, 1024 * TIB, 1024 * TIB)
    require_was_not_full("quantize", "x", tmp_path, 0, 5 * MIB)
    with pytest.raises(NoSpaceError, match=r"it needs about 1024\.0 TiB") as caught:
        require_was_not_full("quantize", "x", tmp_path, 1024 * TIB, MIB)
    assert "--force" not in (caught.value.hint or "")


def test_nothing_free_is_full_even_if_nobody_knows_the_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _: 0)
    with pytest.raises(NoSpaceError, match=r"and 5\.0 MiB are free"):
        require_was_not_full("quantize", "x", tmp_path, 0, 5 * MIB)


def test_what_was_written_is_counted_below_and_links_are_not(tmp_path: Path) -> None:
    put(tmp_path / "in.gguf", bytes(10_000))
    put(tmp_path / "draft/made.gguf", bytes(1000))
    put(tmp_path / "draft/deep/er/made.gguf", bytes(234))
    (tmp_path / "draft/input").mkdir()
    (tmp_path / "draft/input/in.gguf").symlink_to(tmp_path / "in.gguf")
    assert 1234 <= written_bytes(tmp_path / "draft") < 2000
    assert written_bytes(tmp_path / "missing") == 0
