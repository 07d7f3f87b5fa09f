"""The most memory that a child had, as Linux and macOS tell it."""

import contextlib
import resource
import sys
from pathlib import Path


class PeakMemory:
    """The most memory of a child.

    What the kernel tells when it has ended starts, on Linux, at the peak of the process that forked it, for exec hands
    that on (exec_mmap in fs/exec.c). Where that hides the child's own, the looks of its lifetime count; the first finds
    a program that is still being loaded, and says nothing alone.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._looks = 0
        self._seen_bytes = 0

    def look(self) -> None:
        """Note the peak so far; where there is no /proc, nothing happens."""
        with contextlib.suppress(OSError, ValueError):
            for line in self._status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self._looks += 1
                    self._seen_bytes = int(line.split()[1]) * 1024

    def peak_bytes(self, usage: resource.struct_rusage) -> int | None:
        """Return it, with what `wait4` told."""
        if sys.platform == "darwin":
            return usage.ru_maxrss
        if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            return usage.ru_maxrss * 1024
        return self._seen_bytes if self._looks > 1 else None
