"""``make bench``: every ``bench_*.py`` of this folder, or those named, each in a process of its own.

python -m tests.benchmarks [--quick] [--list] [PIECE…]        e.g. submit files log
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.measure import QUICK

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("pieces", nargs="*", metavar="PIECE")
    parser.add_argument("--quick", action="store_true", help="smaller, fewer rounds, nothing written")
    parser.add_argument("--list", action="store_true", help="only name the pieces")
    asked = parser.parse_args()
    known = sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))
    if asked.list:
        print("\n".join(known))
        return 0
    if unknown := set(asked.pieces) - set(known):
        parser.error(f"no such piece: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = [piece for piece in asked.pieces or known if not run(piece, asked.quick)]
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(piece: str, quick: bool) -> bool:
    print(f"\n# {piece}", flush=True)
    environment = {**os.environ, **({QUICK: "1"} if quick else {})}
    return (
        subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.bench_{piece}"], env=environment, cwd=HERE.parents[1]
        ).returncode
        == 0
    )


if __name__ == "__main__":
    sys.exit(main())
