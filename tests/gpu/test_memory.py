"""Memory that runs out in the middle of a step, and the probe that should prevent it."""

from __future__ import annotations

import pytest

from tests.gpu import jobs
from tests.gpu.runs import run_job

GIB = 1 << 30


def test_a_step_that_runs_out_of_memory_is_redone_with_half_the_micro_batch(device, tmp_path):
    settings = jobs.brie(tmp_path, "Qwen 2.5 0.5B", 4)
    with device.limited_to(5 * GIB):
        done = run_job(device, "sft", settings, tmp_path, steps_only=True)
    (event,) = done.run.of_type("oom")
    assert (event["micro_batch_before"], event["micro_batch_after"]) == (4, 2)
    assert [step["step"] for step in done.run.of_type("step")] == [1, 2]


@pytest.mark.parametrize(
    ("model", "full", "limit"), [("Qwen 2.5 1.5B", True, 40), ("Qwen 2.5 0.5B", False, 8)], ids=("full", "lora")
)
def test_what_the_probe_calls_fitting_fits_every_step(device, tmp_path, model, full, limit):
    settings = jobs.brie(tmp_path, model, 4, full=full)
    settings["batch"]["micro"] = "auto"
    with device.limited_to(limit * GIB):
        done = run_job(device, "sft", settings, tmp_path, steps_only=True)
    probed, needed = done.seen.probes[0].peak, max(step.peak for step in done.seen.steps)
    assert needed <= 1.01 * probed, f"probed {probed / GIB:.1f} GiB, a step needs {needed / GIB:.1f}"
    assert done.run.of_type("oom") == []
