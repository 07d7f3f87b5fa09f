"""Run a command and draw what it said as an SVG picture of a terminal (README's picture is made by it).

    python ci/record_terminal.py docs/quickstart.svg --show 'llama-mgr quickstart --stop-after' -- COMMAND [ARG …]

Lines are kept as they were printed, in the order they came; only runs of progress lines are cut to the last.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100
PROGRESS = re.compile(r"^\s*(?P<title>.*?) \[[\d.]+.*\]")


def said_by(argv: list[str]) -> list[str]:
    """Return the lines that a command printed on both streams; a failure ends the recording."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{argv[0]} failed:\n{done.stdout}")
    return done.stdout.splitlines()


def without_repeated_progress(lines: list[str]) -> list[str]:
    """Keep of each run of progress lines only the last."""
    kept: list[str] = []
    for line in lines:
        one, before = PROGRESS.match(line), PROGRESS.match(kept[-1]) if kept else None
        if one and before and one["title"] == before["title"]:
            kept.pop()
        kept.append(line)
    return kept


def main() -> None:
    """Record and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--show", required=True, help="the command line as the picture shows it")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    lines = without_repeated_progress(said_by(options.command))
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.assemble(("$ ", "bold green"), (options.show, "bold")))
        for line in lines:
            console.print(Text(line, style="cyan" if line.startswith("==>") else ""))
        options.picture.write_text(console.export_svg(title="llama-mgr"), encoding="utf-8")


if __name__ == "__main__":
    main()
