"""Programs that stand for toolkits which a test machine does not have: real executables on a PATH of their own."""

import os
import shlex
from pathlib import Path

GCC_12 = "g++ (Debian 12.2.0-14+deb12u1) 12.2.0"


def make_program(directory: Path, name: str, says: str = "", *, status: int = 0, script: str = "") -> Path:
    """Put an executable into `directory`; it prints `says` and ends with `status`, or runs the shell `script`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    body = script or f"printf '%s\\n' {shlex.quote(says)}\nexit {status}"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def make_compiler(
    directory: Path,
    name: str,
    first_line: str,
    *,
    family: str = "Free Software Foundation",
    target: str = "x86_64-linux-gnu",
) -> Path:
    """Put a compiler into `directory` that says who it is, and compiles nothing."""
    script = f"""case "$1" in
--version) printf '%s\\n' {shlex.quote(first_line)} {shlex.quote(family)};;
-dumpmachine) echo {shlex.quote(target)};;
*) exit 1;;
esac"""
    return make_program(directory, name, script=script)


def path_of(*directories: Path) -> dict[str, str]:
    """Return an environment whose PATH is these directories and nothing else."""
    return {"PATH": os.pathsep.join(map(str, directories)), "HOME": "/nonexistent"}
