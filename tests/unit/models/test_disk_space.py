"""What a download still needs on the disk, and which disk that is."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from llama_mgr.errors import NoSpaceError, StorageError
from llama_mgr.models.disk_space import Space, full_disk, mount_point, require_room
from llama_mgr.partial import held_partial

DIGEST = "0123456789abcdef" * 4


def begun(target: Path, size_bytes: int, reserved_bytes: int = 0) -> None:
    with suppress(KeyboardInterrupt), held_partial(target, DIGEST) as partial:
        partial.file.write(b"x" * size_bytes)
        partial.reserve(reserved_bytes)
        raise KeyboardInterrupt


def test_what_came_already_is_not_needed_again(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    assert Space(target, DIGEST, 1_000_000).missing_bytes() == 1_000_000
    begun(target, 400_000)
    assert Space(target, DIGEST, 1_000_000).missing_bytes() <= 600_000
    assert Space(target, DIGEST, 1_000_000).present_bytes() == 400_000
    assert Space(target, "f" * 64, 1_000_000).missing_bytes() == 1_000_000


def test_what_was_reserved_is_not_needed_again(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    begun(target, 5, 1_000_000)
    if target.parent.joinpath(".model.gguf.0123456789abcdef.part").stat().st_blocks * 512 < 1_000_000:
        pytest.skip("the file system of the tests cannot reserve")
    assert Space(target, DIGEST, 1_000_000).missing_bytes() == 0


def test_too_little_room_names_need_free_and_file_system(tmp_path: Path) -> None:
    target = tmp_path / "not" / "there" / "model.gguf"
    with pytest.raises(NoSpaceError) as caught:
        require_room("pull", "owner/repo", [Space(target, DIGEST, 1 << 60)])
    assert caught.value.message.startswith("cannot pull 'owner/repo': it needs 10")
    assert f"are free on the file system of {mount_point(tmp_path)}" in caught.value.message
    assert not target.parent.exists()
    require_room("pull", "owner/repo", [Space(target, DIGEST, 0)])
    require_room("pull", "owner/repo", [])


def test_a_mount_point_is_one(tmp_path: Path) -> None:
    assert os.path.ismount(mount_point(tmp_path / "not" / "there"))
    if Path("/proc/self").exists():
        assert mount_point(Path("/proc/self")) == Path("/proc")


def test_a_disk_that_becomes_full_says_what_is_kept(tmp_path: Path) -> None:
    with pytest.raises(NoSpaceError, match="is full; what has come is kept"), full_disk(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(NoSpaceError) as caught, full_disk(tmp_path / "x", tmp_path / ".x.part"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path / ".x.part") in str(caught.value.hint)
    with pytest.raises(StorageError, match="Input/output error"), full_disk(tmp_path / "x"):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(NoSpaceError, match="told beforehand"), full_disk(tmp_path / "x"):
        raise NoSpaceError("told beforehand")
