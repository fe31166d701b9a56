"""The job of a recorded run, when it is read again to go on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import jobfile, store
from runner.domain.recorded_job import read_job
from runner.domain.run import Run
from runner.workflow.resume import job_of

JOB = """\
name: old
recipe: classify
code: {path: .}
data: [data]
settings: {model: org/model, train: data, evaluation: {metric: macro_f1}}
"""


def test_a_run_recorded_by_an_older_version_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.1 completed every job with ``higher_is_better``, which is no setting any more."""
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    (tmp_path / "job.yaml").write_text(JOB)
    wire = jobfile.load(tmp_path / "job.yaml").wire()
    wire["settings"]["evaluation"]["higher_is_better"] = False
    run = Run("old-20260102-142030-7f3a", read_job(wire, tmp_path, tmp_path / "job.yaml"), "local", 1e9)
    store.create(run)
    evaluation = job_of(run, ("settings.evaluation.patience=2",)).settings["evaluation"]
    assert (evaluation["metric"], evaluation["patience"]) == ("macro_f1", 2)
    assert "higher_is_better" not in evaluation
