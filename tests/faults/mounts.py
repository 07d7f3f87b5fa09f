"""File systems made for one test: an ext4 image whose power can be cut, and small tmpfs."""

import contextlib
import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
_NO_LOG_FLUSH = 2
# With ext4's default auto_da_alloc, a missing fsync before a rename does not show.
_OPTIONS = "noauto_da_alloc"


class PowerSupply:
    """A mounted ext4 image; `cut` loses everything that was not made durable."""

    def __init__(self, device: str, mount_dir: Path) -> None:
        self._device = device
        self.mount_dir = mount_dir

    def cut(self, *, journal: bool) -> None:
        """Lose the power, and come back. With `journal`, the journal is committed first.

        A committed journal has renames and sizes, but not the contents that nobody synced.
        """
        if journal:
            self._commit_journal()
        descriptor = os.open(self.mount_dir, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        _command("umount", self.mount_dir)
        _command("mount", "-o", _OPTIONS, self._device, self.mount_dir)

    def settle(self) -> None:
        """Make everything durable that is there now."""
        os.sync()

    def _commit_journal(self) -> None:
        descriptor = os.open(self.mount_dir / "unrelated", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, b"x")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def power_supply(work_dir: Path, size: str = "8G") -> Iterator[PowerSupply]:
    """Mount a fresh ext4 image below `work_dir` for as long as the context is open.

    The image is sparse; its size is what an install wants to see free.
    """
    image, mount_dir = work_dir / "image", work_dir / "mount"
    mount_dir.mkdir(parents=True)
    _command("truncate", "-s", size, image)
    _command("mkfs.ext4", "-q", "-F", image)
    # One loop device for all mounts: the kernel lets go of one late, and two on one image show each other old blocks.
    device = _command("losetup", "--find", "--show", image).strip()
    try:
        _command("mount", "-o", _OPTIONS, device, mount_dir)
        yield PowerSupply(device, mount_dir)
    finally:
        subprocess.run(["umount", mount_dir], capture_output=True, check=False)
        subprocess.run(["losetup", "--detach", device], capture_output=True, check=False)
        image.unlink()


@contextmanager
def small_disk(mount_dir: Path, size_kib: int) -> Iterator[Path]:
    """Mount a tmpfs of that size for as long as the context is open."""
    mount_dir.mkdir(parents=True, exist_ok=True)
    _command("mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=0700", "tmpfs", mount_dir)
    try:
        yield mount_dir
    finally:
        subprocess.run(["umount", "-l", mount_dir], capture_output=True, check=False)


def leave_free(mount_dir: Path, free_kib: int) -> None:
    """Shrink a mounted tmpfs to what is used and `free_kib`, though others write to it meanwhile."""
    for _ in range(200):
        with contextlib.suppress(RuntimeError):  # somebody wrote between the question and the remount
            resize(mount_dir, used_kib(mount_dir) + free_kib)
            return
    raise RuntimeError(f"{mount_dir} grows too fast to be made small")


def resize(mount_dir: Path, size_kib: int) -> None:
    """Give a mounted tmpfs another size; smaller than what is used is refused by the kernel."""
    _command("mount", "-o", f"remount,size={size_kib}k", mount_dir)


def used_kib(mount_dir: Path) -> int:
    """Return what is used of a mounted file system."""
    return shutil.disk_usage(mount_dir).used // 1024


@functools.cache
def no_tmpfs() -> str | None:
    """Return why small disks cannot be mounted here, or None."""
    with tempfile.TemporaryDirectory() as work_dir:
        try:
            with small_disk(Path(work_dir), 64):
                return None
        except (OSError, RuntimeError) as error:
            return f"tmpfs cannot be mounted: {error}"


@functools.cache
def no_power_cuts() -> str | None:
    """Return why the power of an ext4 image cannot be cut here, or None."""
    with tempfile.TemporaryDirectory() as work_dir:
        try:
            with power_supply(Path(work_dir), "16M") as power:
                power.cut(journal=False)
                return None
        except (OSError, RuntimeError) as error:
            return f"loop mounts or EXT4_IOC_SHUTDOWN are not possible: {error}"


def _command(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"{argv[0]}: {done.stderr.strip()}"
        raise RuntimeError(message)
    return done.stdout
