"""What ``gpurun sweep`` and ``gpurun list`` draw from records alone: whole ids at 80 columns, the column of sweeps, how many more."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from runner import store
from runner.cli import sweep
from runner.cli.group import gpurun
from runner.domain.answers.results import Evaluation, Results
from runner.domain.answers.status import Status
from runner.domain.job import Job
from runner.domain.run import Run
from runner.workflow.sweeping.find import Part, Sweep
from runner.workflow.sweeping.look import Row, View

HOST = "ssh -p 41022 root@ec2-12-34-56-78.compute.amazonaws.com -i ~/.ssh/key"


def row(seed: int, values: dict[str, float], sets: int = 1) -> Row:
    run_id = f"finetune-legal-large-epochs-5-seed-{seed}-20261121-022259-d16{seed}"
    step = {"step": 4600 + seed, "total": 68000, "loss": 1.25, "ms": 900.0}
    status = Status(
        run_id, "finished", "succeeded", gpus=(3,), started_at=1.0, now=4000.0, ended_at=4000.0, progress={"step": step}
    )
    job = Job("legal", price_per_hour=2.0)
    run = Run(run_id, job, HOST, 1.0, launched=True, submission="3fa9c210", experiment="legal-epochs-5", status=status)
    evaluations = tuple(Evaluation(f"set-{number}", 9, values) for number in range(sets))
    return Row(Part((run,)), {"seed": str(seed)}, Results(status, evaluations, None, 14 * 10**9, 6, 90 * 10**9), 4000.0)


def view(count: int, sets: int = 1) -> View:
    rows = tuple(row(seed, {"loss": float(seed), "accuracy": 0.5}, sets) for seed in range(count))
    return View(Sweep("3fa9c210", tuple(each.part for each in rows)), rows)


@pytest.mark.parametrize("width", [60, 80, 120, 250])
def test_an_id_is_whole_at_every_width_and_the_rest_fits(width: int) -> None:
    lines = str(sweep._table(view(5), width, 60)).splitlines()
    for number, each in enumerate(view(5).rows, 1):
        assert lines[number].startswith(each.run.run_id)
    assert max(map(len, lines[:6])) <= max(width, 75)
    assert "legal-epochs-5  set-0       loss      2 ± 1.6    5 of 5" in lines
    assert lines[-1] == (
        "sweep 3fa9c210; 5 runs: 5 succeeded; checkpoints final 5 (70.0 GB), all 30 (450.0 GB); cost 11.11"
    )


def test_what_does_not_fit_the_terminals_height_is_counted() -> None:
    lines = str(sweep._table(view(5, sets=100), 80, 24)).splitlines()
    assert len(lines) == 23 and lines[-2] == "… 187 more lines: gpurun sweep 3fa9c210 | less"


def test_the_list_names_the_sweep_of_runs_that_were_submitted_together_and_says_how_many_more_there_are(
    tmp_path: Path,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPURUN_HOME", str(tmp_path))
        for number in range(31):
            submission = "3fa9c210" if number > 27 else f"{number:08x}"
            store.create(
                Run(f"a-20260102-1420{number:02}-{number:04x}", Job("a"), HOST, float(number), submission=submission)
            )
        shown = CliRunner().invoke(gpurun, ["list"])
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["run", "sweep", "host", "status"] and len(lines) == 31
    assert [line.split()[1] for line in lines[-3:]] == ["3fa9c210"] * 3
    assert shown.stderr.startswith("1 more: gpurun list --all")
