"""runner/workflow/retention.py: which runs of an experiment stay on the box."""

from dataclasses import replace

from runner.domain.answers.holdings import Held
from runner.domain.answers.manifest import Artifact, Manifest
from runner.domain.answers.status import Status
from runner.domain.job import Environment, Job
from runner.domain.run import Run
from runner.workflow.fetching.fetched_state import FetchedState
from runner.workflow.retention import Candidate, decide_retention

FILE = Artifact("models/best/weights", 1, "0" * 64)


def candidate(
    number, *, ended=None, outcome="succeeded", submission="s1", steps=5000, files=1, home=True, created=None
):
    run_id = f"mayors-20260102-14203{number}-000{number}"
    job = Job(f"mayors-seed-{number}", "finetune", settings={"seed": number, "max_steps": steps})
    created = created if created is not None else float(number)
    run = Run(run_id, job, "box", created, experiment="mayors", submission=submission)
    status = Status(run_id, "finished" if outcome else "running", outcome, ended_at=ended or 100.0 + number)
    listed = Manifest(True, (FILE,) * files)
    here = FetchedState(run_id, listed, () if home else listed.files, log_complete=True) if outcome else None
    return Candidate(run, Held("/root", status, ()), here)


def going(candidates, keep=1, named=()):
    return [each.run_id[-1] for each in decide_retention(candidates, keep, named) if each.goes]


def test_the_first_to_finish_stay_and_the_rest_go_where_they_are_home():
    assert going([candidate(1, ended=30.0), candidate(2, ended=10.0), candidate(3, ended=20.0)]) == ["1", "3"]
    assert going([candidate(1, ended=30.0), candidate(2, ended=10.0), candidate(3, ended=20.0)], keep=2) == ["1"]


def test_a_short_trial_of_another_submission_or_with_other_settings_stands_for_nothing():
    real = [candidate(1), candidate(2)]
    assert going([candidate(0, ended=1.0, submission="trial"), *real]) == ["2"]
    assert going([candidate(0, ended=1.0, steps=5), *real]) == ["2"]


def test_runs_of_a_program_of_ones_own_that_differ_in_their_seed_are_repeats():
    def own(number):
        made = candidate(number)
        variables = {"SEED": str(number), "LR": "0.1"}
        job = Job(
            f"own-seed-{number}",
            command=("python", "a.py"),
            environment=Environment(variables=variables),
            outputs=("models",),
        )
        return replace(made, run=replace(made.run, job=job))

    assert going([own(1), own(2)]) == ["2"]


def test_a_run_that_failed_or_left_nothing_is_never_the_one_that_stays():
    assert going([candidate(1, outcome="failed"), candidate(2, files=0), candidate(3)]) == ["1", "2"]


def test_what_is_not_home_stays_unless_it_is_named_and_says_what_to_type():
    kept = candidate(1)
    away = candidate(2, home=False)
    assert going([kept, away]) == []
    assert "gpurun fetch" in decide_retention([kept, away], 1, ())[1].why
    assert going([kept, away], named=[away.run.run_id]) == ["2"]


def test_a_run_that_is_not_over_stays_even_when_it_is_named():
    alive = candidate(1, outcome=None)
    assert going([alive, candidate(2)], keep=0, named=[alive.run.run_id]) == ["2"]


def test_records_of_an_older_gpurun_belong_together_when_they_were_made_together():
    first = [candidate(number, submission=None, created=1000.0 + number) for number in (1, 2)]
    later = [candidate(number, submission=None, created=9000.0 + number) for number in (3, 4)]
    assert going([*first, *later]) == ["2", "4"]
