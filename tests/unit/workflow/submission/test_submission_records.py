"""runner/workflow/submission/records.py: what is written down of a submission that did not end with a start."""

import time
from pathlib import Path

import pytest

from runner import store
from runner.domain.errors import GpuBusy, Interrupted, LaunchError, NotStarted, StartUnconfirmed, UserError
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.workflow.submission.records import interruption_explained, outcome_recorded


@pytest.mark.parametrize(("kind", "may_live"), [(NotStarted, False), (GpuBusy, False), (StartUnconfirmed, True)])
def test_a_start_that_was_not_confirmed_is_not_taken_for_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[LaunchError], may_live: bool
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    run = Run(mint_id("legal"), Job("legal"), "nowhere", time.time(), attempted=True)
    store.create(run)
    with pytest.raises(kind), outcome_recorded([run]):
        raise kind("as the box said")
    assert store.load(run.run_id).may_be_there is may_live


@pytest.mark.parametrize("attempted", [True, False])
def test_a_record_is_taken_back_unless_another_gpurun_has_gone_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempted: bool
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    run = Run(mint_id("legal"), Job("legal"), "nowhere", time.time())
    store.create(run)
    store.update(store.load(run.run_id), attempted=attempted)  # by another
    with pytest.raises(UserError), outcome_recorded([run], discard_after=(UserError,)):
        raise UserError("nothing to send")
    assert (run.run_id in store.run_ids()) is attempted


@pytest.mark.parametrize(
    ("error", "attempted", "stays"),
    [
        (KeyboardInterrupt(), False, False),
        (KeyboardInterrupt(), True, True),
        (NotStarted("refused"), True, False),
        (StartUnconfirmed("no answer"), True, True),
    ],
)
def test_of_a_resumed_run_that_did_not_start_nothing_stays_unless_it_may_be_on_the_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, attempted: bool, stays: bool
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    run = Run(mint_id("legal"), Job("legal"), "nowhere", time.time(), attempted=attempted)
    store.create(run)
    with (
        pytest.raises((Interrupted, LaunchError)) as caught,
        interruption_explained([run]),
        outcome_recorded([run], discard_after=(BaseException,)),
    ):
        raise error
    assert (run.run_id in store.run_ids()) is stays
    if isinstance(caught.value, Interrupted):
        assert (run.run_id in str(caught.value)) is stays
