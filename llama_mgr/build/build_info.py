"""Telling old trees which build they are.

Trees before mid-2025 ignore LLAMA_BUILD_NUMBER and ask git at build time, through a CMake file that sets four
variables (`cmake/build-info.cmake`, before b3236 `scripts/build-info.cmake`). In our checkout that file is rewritten.
"""

from pathlib import Path

from llama_mgr.build.plan import Plan
from llama_mgr.build.source import short_commit
from llama_mgr.store import storage_errors


def write(file: Path, plan: Plan) -> None:
    """Make the CMake file `file` of a checkout set the build number and commit of `plan`.

    Raises:
        StorageError: the disk is full or failing.
    """
    compiler = plan.compilers.get("c", "unknown").replace('"', "'")
    text = (
        f"set(BUILD_NUMBER {plan.build_number})\n"
        f'set(BUILD_COMMIT "{short_commit(plan.commit)}")\n'
        f'set(BUILD_COMPILER "{compiler}")\n'
        f'set(BUILD_TARGET "{plan.host.get("machine", "unknown")}")\n'
    )
    with storage_errors("cannot write", file):
        file.write_text(text, encoding="utf-8")
