"""Damaged GGUF headers by the hundred thousand: none may hang, crash or fool the reader.

    python ci/gguf_fuzz.py                     200,000 mutations and 2,000 truncations, a few minutes
    python ci/gguf_fuzz.py --count 5000 --seed 7

The status is 1 if anything was found, more than 100 MB of memory included; findings are printed with the bytes that
cause them. A test runs a slice.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.tools.gguf_file import model_bytes
from tests.tools.gguf_fuzz import fuzz, memory_findings, seeds, truncate
from tests.tools.peak_memory import peak_bytes

_SHOWN_FINDINGS = 20


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Damage GGUF headers, and look what the reader makes of them.")
    parser.add_argument("--count", type=int, default=200_000, help="how many mutations")
    parser.add_argument("--truncations", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    heads = seeds()
    found = fuzz(heads, options.count, options.seed)
    print(f"{options.count:,} mutations of {len(heads)} files: {found}")
    whole = model_bytes(quant="F16", layers=2)
    cut = truncate(whole, [len(whole) * number // options.truncations for number in range(options.truncations)])
    print(f"{options.truncations:,} truncations of {len(whole):,} bytes: {cut}")
    print(f"peak memory {peak_bytes() / 1000**2:.0f} MB")
    findings = found.findings + cut.findings + memory_findings()
    print("\n".join(findings[:_SHOWN_FINDINGS]))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
