"""How much memory this process has had at most."""

import re
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Return the largest resident size so far. On Linux ru_maxrss would count the process that forked this one."""
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
