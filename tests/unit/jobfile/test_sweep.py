"""One job file that means many runs."""

import json
import re

import pytest

from remote_payload.agent.wire.paths import RUN_ID
from runner.domain.run import Run
from runner.domain.sweep import MAX_NAME, SweepRun, expand, group_of, take_turns
from runner.jobfile import InvalidJobFile, load_runs

S2 = {"settings.epochs": [1, 5], "settings.seed": [0, 1, 2, 3, 4]}


def test_a_job_without_a_sweep_is_one_run():
    assert expand("legal", {}) == [SweepRun("legal", "legal", {})]


def test_every_combination_is_a_run_with_its_own_name():
    runs = expand("death-dates", S2)
    assert len(runs) == len({run.name for run in runs}) == 10
    assert runs[1] == SweepRun(
        "death-dates-epochs-5-seed-0", "death-dates-epochs-5", {"settings.epochs": 5, "settings.seed": 0}
    )


def test_runs_that_differ_in_the_seed_alone_are_one_experiment():
    experiments = {}
    for run in expand("death-dates", S2):
        experiments.setdefault(run.experiment, []).append(run.overrides["settings.seed"])
    assert experiments == {"death-dates-epochs-1": [0, 1, 2, 3, 4], "death-dates-epochs-5": [0, 1, 2, 3, 4]}


def test_every_experiment_comes_once_before_any_comes_twice():
    order = [run.experiment for run in expand("death-dates", S2)]
    assert order[:2] == ["death-dates-epochs-1", "death-dates-epochs-5"] and order == order[:2] * 5


def test_a_sweep_over_the_seed_alone_is_one_experiment_under_the_job_s_name():
    assert {run.experiment for run in expand("mayors", {"settings.seed": [1, 2]})} == {"mayors"}


@pytest.mark.parametrize("value", [1e-4, "org/Model 7B", True, None, "-rf", "ü" * 60, "x" * 300])
def test_names_are_fit_for_run_ids_whatever_the_values(value):
    for run in expand("a-name", {"settings.optimizer.learning_rate": [value], "settings.seed": [0]}):
        assert len(run.name) <= MAX_NAME
        assert re.fullmatch(RUN_ID, f"{run.name}-20260102-142030-7f3a")


def test_names_too_long_to_show_the_difference_are_told_apart():
    runs = expand("a" * 40, {"settings.model": ["x" * 40 + "1", "x" * 40 + "2"]})
    assert runs[0].name != runs[1].name


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"settings.seed": 3}, r"sweep\.settings\.seed: expected a list of values, got 3"),
        ({"settings.seed": []}, r"sweep\.settings\.seed: no values"),
        ({"settings.seed": [1, 2, 1]}, r"sweep\.settings\.seed: 1 is there twice"),
        ({"settings.seed": [1, "1"]}, "would both be called job-seed-1"),
        ({"settings.a": list(range(40)), "settings.b": list(range(40))}, "1600 runs are more than the 1000"),
    ],
)
def test_a_sweep_that_makes_no_sense_says_why(sweep, message):
    with pytest.raises(ValueError, match=message):
        expand("job", sweep)


def write_job(folder, **fields):
    (folder / "train.py").write_text("")
    body = {"name": "probe", "command": ["python", "train.py"], "outputs": ["models"], **fields}
    (folder / "job.yaml").write_text(json.dumps(body))
    return folder / "job.yaml"


def test_a_job_file_with_a_sweep_is_many_jobs_with_names_and_fields_of_their_own(tmp_path):
    file = write_job(tmp_path, sweep={"environment.variables.SEED": ["1", "2"], "time_limit": ["1h", "2h"]}, queue=True)
    runs = load_runs(file)
    names = ["probe-time-limit-1h", "probe-time-limit-2h"]
    assert [experiment for _, experiment in runs] == names * 2
    assert [job.name for job, _ in runs] == [f"{name}-seed-{seed}" for seed in (1, 2) for name in names]
    assert [(job.environment.variables["SEED"], job.time_limit) for job, _ in runs] == [
        ("1", 3600), ("1", 7200), ("2", 3600), ("2", 7200),
    ]  # fmt: skip
    assert all(job.sweep is None and job.queue for job, _ in runs)
    assert len(load_runs(file, ["sweep=null"])) == 1


def test_a_wrong_sweep_has_its_line_and_a_wrong_field_in_it_is_named(tmp_path):
    file = write_job(tmp_path, sweep={"settings.seed": [1, 1]})
    with pytest.raises(InvalidJobFile, match=r"job\.yaml:1:\d+: sweep\.settings\.seed: 1 is there twice"):
        load_runs(file)
    with pytest.raises(InvalidJobFile, match="time_limt"):
        load_runs(write_job(tmp_path, sweep={"time_limt": ["1h", "2h"]}))


def test_a_group_is_the_runs_of_one_submission_that_differ_in_the_seed_alone(tmp_path):
    sweep = {"environment.variables.EPOCHS": ["1", "5"], "environment.variables.SEED": ["0", "1"]}
    loaded = load_runs(write_job(tmp_path, sweep=sweep, keep_finished=1))

    def group(job, submission):
        return group_of(Run("r-20260102-142030-7f3a", job, "box", 0.0, submission=submission))

    groups = [group(job, "one") for job, _ in loaded]
    assert groups == [groups[0], groups[1]] * 2 and groups[0] != groups[1]
    assert group(loaded[0][0], "two") != groups[0]


def test_several_job_files_take_turns():
    assert take_turns([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]]) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def publishing(folder, repository, **sweep):
    """A job file of a sweep whose runs publish."""
    (folder / "data.jsonl").write_text("{}\n")
    settings = {"model": "org/base", "train": "data.jsonl", "publish": {"repository": repository}}
    job = {"name": "legal", "recipe": "classify", "data": ["data.jsonl"], "settings": settings, "sweep": sweep}
    (folder / "job.yaml").write_text(json.dumps(job))
    return folder / "job.yaml"


def repositories(file):
    return [job.setting("publish", "repository") for job, _ in load_runs(file)]


@pytest.mark.parametrize("written", ["me/{name}", "me/x-{name}", "me/{name}.{name}"])
def test_each_run_of_a_sweep_publishes_under_its_own_name(tmp_path, written):
    file = publishing(tmp_path, written, **{"settings.epochs": [1, 5], "settings.seed": [0, 1]})
    names = [job.name for job, _ in load_runs(file)]
    assert repositories(file) == [written.replace("{name}", name) for name in names] and len(set(names)) == 4


def test_one_repository_for_several_runs_is_refused_before_anything_starts(tmp_path):
    file = publishing(tmp_path, "me/legal", **{"settings.epochs": [1, 5], "settings.seed": [0, 1]})
    with pytest.raises(InvalidJobFile, match=r'4 runs of this sweep would publish to me/legal, .*: "me/\{name\}"'):
        load_runs(file)


def test_the_repository_may_be_an_axis_of_its_own(tmp_path):
    axis = {"settings.publish.repository": ["me/a", "me/b", None]}
    assert repositories(publishing(tmp_path, "me/legal", **axis)) == ["me/a", "me/b", None]
    with pytest.raises(InvalidJobFile, match="2 runs of this sweep would publish to me/a"):
        load_runs(publishing(tmp_path, "me/legal", **axis, **{"settings.epochs": [1, 2]}))


def test_a_run_alone_may_name_itself_and_a_name_that_cannot_be_is_refused(tmp_path):
    assert repositories(publishing(tmp_path, "me/{name}")) == ["me/legal"]
    for wrong in ("legal", "me/{user}", "me/a b", "me/x/y"):
        with pytest.raises(InvalidJobFile, match="is no repository of the Hub: write owner/name"):
            load_runs(publishing(tmp_path, wrong))
