"""What a name stands for: a sweep by its id, by its job file, by any run of it; and which runs of it count."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import store
from runner.domain.errors import NotStarted, UnknownRun
from runner.domain.recorded_job import read_job
from runner.domain.run import Run
from runner.workflow.sweeping.find import as_sweep, find_started_runs, find_sweep


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))


def run(number: int, submission: str | None, seed: int, parent: Run | None = None, launched: bool = True) -> Run:
    name, experiment = f"mayors-epochs-1-seed-{seed}", "mayors-epochs-1"
    overrides = ("settings.lr=0.1", f"settings.seed={seed}", f"name={name}", "sweep=null")
    job = read_job({"name": name, "command": ["true"]}, Path("/x"), Path("/x/jobs/mayors.yaml"), overrides)
    made = Run(
        f"{name}-20260102-1420{number:02}-{number:04x}", job, "box", float(number), launched=launched,
        experiment=experiment, submission=submission, parent=parent.run_id if parent else None,
    )  # fmt: skip
    store.create(made)
    return made


def test_a_sweep_is_found_by_its_id_its_file_its_experiment_and_any_run_of_it() -> None:
    old = [run(number, "aaaa0000", number) for number in range(2)]
    new = [run(number, "bbbb1111", number) for number in range(2, 5)]
    for name in (
        "bbbb1111",
        "mayors",
        "mayors.yaml",
        "mayors-epochs-1",
        new[0].run_id,
        "0003",
        "mayors-epochs-1-seed-4",
        None,
    ):
        found = find_sweep(name)
        assert found.id == "bbbb1111" and found.newest == [store.load(each.run_id) for each in new], name
    for name in ("aaaa0000", old[1].run_id, "0000"):
        assert [each.run_id for each in find_sweep(name).newest] == [each.run_id for each in old], name
    assert find_sweep("bbbb1111").differing == {
        each.run_id: {"seed": str(number)} for number, each in enumerate(new, 2)
    }
    with pytest.raises(UnknownRun, match="knows no sweep, job or run 'legal'"):
        find_sweep("legal")


def test_of_a_run_that_was_resumed_the_newest_that_was_started_counts() -> None:
    first, other = run(1, "aaaa0000", 1), run(2, "aaaa0000", 2)
    second = run(3, "aaaa0000", 1, first)
    run(4, "aaaa0000", 1, second, launched=False)
    found = find_sweep("aaaa0000")
    assert [each.run_id for each in found.newest] == [second.run_id, other.run_id]
    assert [part.first.run_id for part in found.parts] == [first.run_id, other.run_id]


def test_a_command_that_takes_runs_takes_the_run_where_a_name_fits_both() -> None:
    runs = [run(number, "aaaa0000", number) for number in range(3)]
    assert as_sweep(runs[0].run_id) is None and as_sweep("mayors-epochs-1-seed-2") is None and as_sweep(None) is None
    assert [each.run_id for each in find_started_runs([runs[1].run_id]).runs] == [runs[1].run_id]
    everything = [each.run_id for each in runs]
    for name in ("aaaa0000", "mayors"):
        assert [each.run_id for each in find_started_runs([name]).runs] == everything
    assert [each.run_id for each in find_started_runs([runs[1].run_id, "mayors"]).runs] == [
        everything[1],
        everything[0],
        everything[2],
    ]
    with pytest.raises(UnknownRun):
        find_started_runs(["legal"])


def test_a_sweep_of_which_nothing_was_started_says_so() -> None:
    run(1, "aaaa0000", 1, launched=False)
    with pytest.raises(NotStarted, match="no run of the sweep aaaa0000 was started"):
        find_started_runs(["aaaa0000"])


def test_a_run_of_an_older_gpurun_is_a_sweep_of_its_own() -> None:
    alone = run(1, None, 1)
    run(2, None, 2)
    assert [each.run_id for each in find_sweep(alone.run_id).newest] == [alone.run_id]
