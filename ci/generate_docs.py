"""Write the pages of docs/ that are made from the code: `python ci/generate_docs.py`; `--check` only compares.

tests/unit/test_generated_docs.py fails when a page does not say what the code says.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path

from llama_mgr.errors import LlamaMgrError, error_classes

ROOT = Path(__file__).resolve().parent.parent

_CLASSES_OF_TROUBLE = {
    1: "a bug of ours; the message names the file with the traceback",
    2: "bad usage, malformed input or configuration",
    3: "not found",
    4: "busy, exists already, or in use",
    5: "integrity: a hash, a damaged or incomplete file, an undeclared define, an absent device",
    6: "a remote or the daemon is unavailable; worth trying again",
    7: "login or permission at the remote",
    8: "a needed tool is missing; all of them are named at once, with the install line",
    9: "a child program failed; its status, its last lines and its log file are named",
    10: "disk, permission or I/O on this machine",
    11: "refused as unsafe; the flag that allows it is named",
    12: "state written by a newer version",
    129: "the terminal was closed (SIGHUP); children stopped, staging removed or resumable",
    130: "interrupted (Ctrl-C); children stopped, staging removed or resumable",
    143: "terminated (SIGTERM); children stopped, staging removed or resumable",
}

_EXIT_CODES_HEAD = """\
# Exit statuses and error codes

<!-- made by ci/generate_docs.py from llama_mgr/errors.py: change that file, not this page -->

Every command ends with one of these statuses. On standard error it says `error: <what> '<input>': <why>` and, where
there is one, `hint: <the next command>`; with `--json` it prints `{"error": {"code", "exit", "message", "hint"}}` on
standard output instead. The codes are stable: scripts may compare them.

Status 0 means done, or already so.
"""


def exit_codes_page() -> str:
    """Return the text of docs/exit-codes.md."""
    parts = [_EXIT_CODES_HEAD]
    for status, classes in groupby(error_classes(), key=lambda one: one.exit_status):
        parts.append(f"## {status}: {_CLASSES_OF_TROUBLE[status]}\n")
        parts.append("| code | HTTP | when |\n|---|--:|---|")
        parts += [f"| `{one.code}` | {one.http_status} | {_meaning(one)} |" for one in classes]
        parts[-1] += "\n"
    return "\n".join(parts)


def _meaning(one: type[LlamaMgrError]) -> str:
    return " ".join((one.__doc__ or "").split("\n\n", maxsplit=1)[0].split()).replace("|", "\\|")


PAGES = {ROOT / "docs" / "exit-codes.md": exit_codes_page}


def main() -> int:
    """Write every page, or with --check tell which differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a page differs")
    check = parser.parse_args().check
    differing = 0
    for page, text in PAGES.items():
        if page.exists() and page.read_text("utf-8") == text():
            continue
        differing += 1
        print(f"{page.relative_to(ROOT)} {'differs' if check else 'written'}")
        if not check:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text(), "utf-8")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
