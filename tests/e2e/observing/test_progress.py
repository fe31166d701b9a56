"""A program that knows nothing of gpurun, over a real sshd: its step, total, loss and the time that is left, while it runs and after it."""

from __future__ import annotations

import json
from typing import Any

from tests.support.agent import wait_until
from tests.support.cli import Gpurun

# What transformers' Trainer writes to a file: a bar that is drawn over itself, and every second step a dictionary.
PROGRAM = """
import sys, time
for step in range(1, 2001):
    sys.stderr.write(f"\\r {step // 20}%|##        | {step}/2000 [00:01<10:00,  5.00it/s]")
    if step % 2 == 0:
        sys.stderr.write("\\r" + " " * 40 + "\\r")
        print({"loss": round(3 - step / 2000, 4), "grad_norm": 0.5, "learning_rate": 5e-05, "epoch": step / 2000}, flush=True)
        sys.stderr.write(f"\\r {step // 20}%|##        | {step}/2000 [00:01<10:00,  5.00it/s]")
    sys.stderr.flush()
    time.sleep(0.2)
"""


def test_a_trainer_is_seen_while_it_runs(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job(PROGRAM, outputs=["out"]))
    seen: dict[str, Any] = {}

    def is_seen() -> bool:
        seen.update(gpurun.json("status"))
        return "loss" in seen["status"]["progress"].get("step", {}) and seen["eta_seconds"] is not None

    wait_until(is_seen)
    step = seen["status"]["progress"]["step"]
    assert 0 < step["step"] < step["total"] == 2000
    assert step["loss"] < 3 and step["lr"] == 5e-05
    assert 0.9 * 0.2 * (2000 - step["step"]) <= seen["eta_seconds"] <= 1.1 * 0.2 * (2000 - step["step"])
    assert f"of {step['total']:,} steps" in gpurun("status").stdout
    gpurun("stop", "--grace", "0")
    wait_until(lambda: '"ended"' in (gpurun.box_run(run_id) / "events.jsonl").read_text())
    lines = (gpurun.box_run(run_id) / "events.jsonl").read_text().splitlines()
    told = [event for event in map(json.loads, lines) if event["type"] == "step"]
    assert [event["step"] for event in told] == sorted({event["step"] for event in told})
    assert all(event["loss"] == round(3 - event["step"] / 2000, 4) for event in told if "loss" in event)
