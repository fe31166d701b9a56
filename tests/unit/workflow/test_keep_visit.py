"""runner/workflow/keeping/visit.py: what a look at a run that ends at this moment leaves here."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.job import Job
from runner.domain.run import Run
from runner.workflow.keeping import visit
from runner.workflow.keeping.board import KeptRun

RUN = "probe-20260102-030405-abcd"


@pytest.mark.stand_in
def test_the_last_line_of_a_run_that_ends_between_two_looks_comes_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stand_in: the box, which writes its last line after its log was read and before its status is."""
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    run = Run(RUN, Job("probe"), "box", 1.0, launched=True)
    store.create(run)
    written = [b"step 1\n"]
    over = Status(RUN, "finished", "succeeded", log_size=len(b"step 1\nended\n"))

    def catch_up(link: object, of: Run, *, note: bool) -> Status:
        (places.run_folder(of.run_id) / "log").write_bytes(b"".join(written))
        written[1:] = [b"ended\n"]
        return over

    monkeypatch.setattr(visit, "catch_up", catch_up)
    visit._look_at(None, KeptRun(run), Status(RUN, "running", log_size=7))  # type: ignore[arg-type]
    assert run.status == over
    assert (places.run_folder(RUN) / "log").read_bytes() == b"step 1\nended\n"
