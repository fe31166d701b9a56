"""Each signature of the agent's table of causes by a real message: cause, quoted line and one thing to change reach the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.run import causes
from tests.support.cli import Gpurun

TABLE = Path(__file__).parents[1] / "unit" / "agent" / "run" / "failure_messages.txt"
LINES = [line.split(" | ", 1) for line in TABLE.read_text().splitlines() if not line.startswith("#")]
MESSAGES = dict(reversed(LINES))  # the first message of each cause
QUICK = ("cuda_oom", "gated_model")


def test_every_signature_has_a_message() -> None:
    assert {signature.name for signature in causes.SIGNATURES} == set(MESSAGES)


@pytest.mark.parametrize(
    "cause", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in MESSAGES]
)
def test_why_a_run_failed_is_told_quoted_and_answered_by_one_change(gpurun: Gpurun, job: Any, cause: str) -> None:
    message = MESSAGES[cause]
    lines = ["step 41 loss 0.3", "Traceback (most recent call last):", message, "later"]
    program = f"import sys\nprint(*{lines!r}, sep='\\n')\nsys.exit(1)\n"
    gpurun.submit(job(program))
    failed = gpurun("logs", "-f", check=10).stderr
    advice = next(signature.advice for signature in causes.SIGNATURES if signature.name == cause)
    shown = gpurun("status").stdout
    assert f"({cause})" in failed and f"({cause})" in shown
    for text in (message.strip(), advice):
        assert text[:200] in failed and text[:200] in shown


ENDS = {
    "timed_out": ("import time\nprint('long', flush=True)\ntime.sleep(600)", {"time_limit": "2s"}, "timed out"),
    "killed": ("import os, signal\nprint('now', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)", {}, "signal 9"),
    "exit": ("raise SystemExit(7)", {}, "exit 7"),
    "exception": ("raise ValueError('row 17 has no label')", {}, "ValueError: row 17 has no label"),
}


@pytest.mark.parametrize("name", [pytest.param(each, marks=pytest.mark.slow) for each in ENDS])
def test_an_end_without_a_signature_is_told_as_it_was(gpurun: Gpurun, job: Any, name: str) -> None:
    program, fields, said = ENDS[name]
    gpurun.submit(job(program, **fields))
    assert said in gpurun("logs", "-f", check=10).stderr
