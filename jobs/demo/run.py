"""`make demo`: the four commands of the README, for real, on the embedded box, with the time each took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STEPS = [
    ("data", [sys.executable, str(HERE / "prepare.py")]),
    ("submit", ["submit", "jobs/demo.yaml", "--host", "local"]),
    ("logs", ["logs", "-f"]),
    ("fetch", ["fetch"]),
    ("smoke test", ["smoke-test", "--device", "auto"]),
]


def main() -> None:
    took: list[tuple[str, float]] = []
    for name, words in STEPS:
        argv = words if name == "data" else [sys.executable, "-m", "runner.cli", *words]
        if name != "data":
            print(f"\n$ gpurun {' '.join(words)}", flush=True)
        began = time.monotonic()
        code = subprocess.run(argv, cwd=ROOT).returncode
        took.append((name, time.monotonic() - began))
        if code != 0:
            sys.exit(f"demo: {name} ended with {code}")
    report(took)


def report(took: list[tuple[str, float]]) -> None:
    """Where the model lies, how well it does, how long each step took, what to try next."""
    state = subprocess.run(
        [sys.executable, "-m", "runner.cli", "status", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    run = json.loads(state.stdout)
    best = Path(run["fetched_into"]) / "models" / "best"
    metrics = json.loads((best / "metrics.json").read_text())
    print(f"\nThe model lies in {best}")
    print(
        "held out: " + "  ".join(f"{name} {value:.3f}" for name, value in metrics.items() if isinstance(value, float))
    )
    print("\n" + "\n".join(f"{name:<12}{seconds:6.1f} s" for name, seconds in took))
    print(f"{'in all':<12}{sum(seconds for _, seconds in took):6.1f} s")
    command = os.path.relpath(Path(sys.executable).parent / "gpurun")
    print(f"\nTry next:\n  {command} status\n  {command} logs --tail 20\n  {command} list\n  {command} done")
    print(f"  tensorboard --logdir {Path(run['fetched_into']) / 'logs'}")


main()
