"""runner/workflow/observing/listing.py, runner/cli/table.py and completion: what is said of runs from the records here alone."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from runner import files, store
from runner.cli import options, sample
from runner.cli.as_document.runs import run_document
from runner.cli.table import fitted
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.workflow.observing.listing import cost, elapsed, short_host

HOUR = 3600.0


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    made = Run(mint_id("legal"), Job("legal", price_per_hour=2.0), "root@box", time.time(), launched=True)
    store.create(made)
    return made


@pytest.mark.parametrize("wrong_by", [-HOUR, 0.0, HOUR])
def test_elapsed_and_cost_are_right_however_wrong_the_boxs_clock_is(run, wrong_by):
    now = time.time() + wrong_by
    run.status, run.status_at = Status(run.run_id, "running", started_at=now - HOUR, now=now), time.time()
    assert elapsed(run.status) == HOUR and cost(run) == 2.0
    run.status = replace(run.status, phase="finished", outcome="succeeded", ended_at=now - HOUR / 2)
    assert elapsed(run.status) == HOUR / 2


def test_a_run_that_ended_while_nobody_looked_costs_what_it_ran_and_not_what_passed_since(run):
    ended = Status(
        run.run_id, "finished", "succeeded", started_at=1000.0, ended_at=1000.0 + HOUR, now=1000.0 + 9 * HOUR
    )
    run.status, run.status_at = ended, time.time()
    assert cost(run) == 2.0 and run_document(run)["cost"] == 2.0 and run_document(run)["elapsed_seconds"] == HOUR


def test_the_document_has_numbers_for_times_and_one_object_for_the_status(run):
    said = json.loads(json.dumps(run_document(run)))
    assert said["run_id"] == run.run_id and said["created_at"] == run.created_at and said["status"] is None


@pytest.mark.parametrize(
    ("typed", "address", "shown"),
    [
        ("root@box", "", "box"), ("ssh://root@box:22", "", "box:22"), ("local", "root@127.0.0.1:40000", "local"),
        ("ssh -p 41022 root@1.2.3.4 -i ~/.ssh/key", "root@1.2.3.4:41022", "1.2.3.4:41022"),
    ],
)  # fmt: skip
def test_the_host_is_shown_short(run, typed, address, shown):
    run.host, run.address = typed, address
    assert short_host(run) == shown


NAMES = ["run", "host", "status", "as of", "step", "cost"]
LONG = "finetune-legal-large-epochs-5-seed-3-20261121-022259-d164"


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_table_fits_the_terminal_and_never_cuts_an_id(width):
    row = [
        LONG,
        "ec2-12-34-56-78.compute.amazonaws.com:41022",
        "failed (cuda_out_of_memory)",
        "3 h ago",
        "46000/68000",
        "12.34",
    ]
    widths = [max(len(cell), len(name)) for cell, name in zip(row, NAMES, strict=True)]
    names, cells, widths = fitted(NAMES, [row], widths, width, {"host": 8, "status": 12}, ("cost", "step", "as of"))
    assert cells[0][0] == LONG and widths[0] == len(LONG)
    assert sum(widths) + 2 * (len(widths) - 1) <= max(width, len(LONG) + 2 + 8 + 2 + 12)
    assert names[:3] == NAMES[:3] and (width < 200 or names == NAMES)


def test_completion_needs_nothing_but_the_records_here(run):
    hosts = {"root@new": {"seen_at": 2.0}, "ssh -p 1 a@b": {"seen_at": 3.0}, "root@old": {"seen_at": 1.0}, "odd": 7}
    files.write_json(places.hosts_file(), hosts)
    assert options.complete_host(None, None, "") == ["root@new", "root@old", "odd", "local"]
    assert options.complete_run(None, None, "leg") == [run.run_id]
    events = ['{"type": "checkpoint", "name": "step-000100"}', '{"type": "step", "step": 7}']
    (places.run_folder(run.run_id) / "events.jsonl").write_text("\n".join(events))
    outputs = places.home() / "out"
    (outputs / "checkpoints" / "step-000200").mkdir(parents=True)
    (outputs / "models" / "best").mkdir(parents=True)
    store.update(run, fetched_into=str(outputs))
    context, parameter = SimpleNamespace(params={"run": None}), SimpleNamespace(default="latest")
    assert options.complete_checkpoint(context, parameter, "") == ["latest", "step-000200", "step-000100", "best"]
    assert options.complete_checkpoint(context, parameter, "step-0001") == ["step-000100"]
    (of_sample,) = (each for each in sample.command.params if each.name == "checkpoint")  # its run is called a target
    context = SimpleNamespace(params={"target": run.run_id})
    assert options.complete_checkpoint(context, of_sample, "") == ["latest", "step-000200", "step-000100", "best"]
