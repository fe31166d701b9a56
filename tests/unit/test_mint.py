"""runner/workflow/mint.py: what is written down of a submission that did not end with a start."""

import time
from pathlib import Path

import pytest

from runner import store
from runner.domain.errors import GpuBusy, LaunchError, NotStarted, StartUnconfirmed
from runner.domain.run import Run, mint_id
from runner.workflow.mint import reason_kept


@pytest.mark.parametrize(("kind", "may_live"), [(NotStarted, False), (GpuBusy, False), (StartUnconfirmed, True)])
def test_a_start_that_was_not_confirmed_is_not_taken_for_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[LaunchError], may_live: bool
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    run = Run(mint_id("legal"), "legal", {}, "legal.yaml", "/", "nowhere", time.time(), attempted=True)
    store.create(run)
    with pytest.raises(kind), reason_kept([run]):
        raise kind("as the box said")
    assert store.load(run.run_id).may_be_there is may_live
