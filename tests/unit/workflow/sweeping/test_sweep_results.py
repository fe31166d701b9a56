"""The results of a sweep: what the verb finds in the runs' own events, and the means over seeds, against pandas on the same files."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from remote_payload.agent.run import evaluations
from remote_payload.agent.run.evaluations import last_of_each_name
from remote_payload.agent.verbs.results import results
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request
from runner.domain.answers.reading import Fields
from runner.domain.answers.results import CHOSEN, Results, read_results
from runner.domain.job import Job
from runner.domain.run import Run
from runner.workflow.sweeping.find import Part
from runner.workflow.sweeping.look import Row
from runner.workflow.sweeping.summary import Mean, summarise

EXPERIMENTS, SEEDS = ("lr-1", "lr-2", "lr-3", "lr-4"), range(5)
SETS = ("validation", "hard", "set, with a comma")


def write_events(file: Path, draw: random.Random) -> None:
    """Steps, evaluations of several sets at several steps, metrics that are no numbers, lines that are no events."""
    lines = []
    for step in range(1, draw.randint(2, 6)):
        lines.append(json.dumps({"t": step, "type": "step", "step": step, "loss": draw.random()}))
        for name in SETS if draw.random() < 0.9 else SETS[:1]:
            metrics = {"loss": draw.gauss(1, 0.3), "accuracy": draw.random(), "eval": None, "odd": float("inf")}
            lines.append(json.dumps({"t": step, "type": "eval", "name": name, "step": step, "metrics": metrics}))
        lines += ['{"type": "eval", "na', "[1]", '{"type": "checkpoint", "name": "eval"}', '"eval"', "é" * 10]
    lines.append("x" * (1 << 17) + '"eval"')
    file.write_text("\n".join(lines) + "\n")


@pytest.fixture
def paths(tmp_path: Path) -> BoxPaths:
    return BoxPaths(str(tmp_path / ".gpurun-box"))


def finished(paths: BoxPaths, run_id: str) -> Path:
    folder = Path(paths.run(run_id).folder)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text('{"recipe": "sft"}')
    return folder


def ask(paths: BoxPaths, run_ids: list[str]) -> tuple[Results, ...]:
    """The verb's answer, as it comes over the wire."""
    return read_results(Fields(json.loads(json.dumps(results(Request({"run_ids": run_ids}, paths))))))


def row(run_id: str, experiment: str, found: Results, outcome: str = "succeeded") -> Row:
    found = replace(found, status=replace(found.status, phase="finished", outcome=outcome))
    run = Run(run_id, Job(run_id), "box", 1.0, launched=True, experiment=experiment, status=found.status)
    return Row(Part((run,)), {}, found)


def with_pandas(files: dict[tuple[str, int], Path]) -> pandas.DataFrame:
    """Mean, standard deviation and count by experiment, evaluation and metric, of the last evaluations in these files."""
    table = []
    for (experiment, seed), file in files.items():
        for line in file.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event["type"] == "eval":
                table += [
                    (experiment, seed, event["name"], event["step"], metric, value)
                    for metric, value in event["metrics"].items()
                ]
    frame = pandas.DataFrame(table, columns=["experiment", "seed", "evaluation", "step", "metric", "value"])
    frame["value"] = pandas.to_numeric(frame["value"]).replace([float("inf")], float("nan"))
    last = frame.sort_values("step", kind="stable").groupby(["experiment", "seed", "evaluation", "metric"]).tail(1)
    found = last.dropna().groupby(["experiment", "evaluation", "metric"])["value"]
    return found.agg(["mean", "std", "count"])


@pytest.mark.parametrize("seed", range(5))
def test_four_experiments_of_five_seeds_have_the_figures_of_pandas(paths: BoxPaths, seed: int) -> None:
    draw = random.Random(f"sweep-{seed}")
    files, experiment_of = {}, {}
    for number, (experiment, each) in enumerate(itertools.product(EXPERIMENTS, SEEDS)):
        run_id = f"{experiment}-seed-{each}-20260102-142030-{number:04x}"
        files[experiment, each] = finished(paths, run_id) / "events.jsonl"
        write_events(files[experiment, each], draw)
        experiment_of[run_id] = experiment
    found = ask(paths, list(experiment_of))
    means = summarise([row(each.status.run_id, experiment_of[each.status.run_id], each) for each in found])
    wanted = with_pandas(files)
    assert len(means) == len(wanted) > 12
    for mean in means:
        figures = wanted.loc[(mean.experiment, mean.evaluation, mean.metric)]
        assert mean.mean == pytest.approx(figures["mean"], rel=1e-12)
        assert mean.count == figures["count"] and mean.runs == len(SEEDS)
        assert mean.deviation == (None if mean.count == 1 else pytest.approx(figures["std"], rel=1e-12))


def test_the_chosen_model_is_an_evaluation_and_only_runs_that_succeeded_count(paths: BoxPaths) -> None:
    ids = [f"a-seed-{number}-20260102-142030-000{number}" for number in range(3)]
    for number, run_id in enumerate(ids):
        folder = finished(paths, run_id)
        best = folder / "outputs" / "models" / "best"
        best.mkdir(parents=True)
        (best / "manifest.json").write_text('{"files": [{"path": "weights", "size": 100}]}')
        (best / "metrics.json").write_text(json.dumps({"step": 4, "loss": float(number)}))
        write_checkpoint(folder / "outputs" / "checkpoints" / "step-000004", 7)
        (folder / "events.jsonl").write_text(
            '{"type": "eval", "name": "validation", "step": 8, "metrics": {"loss": 9}}\n'
        )
    found = ask(paths, ids)
    assert {(each.final, each.checkpoints, each.bytes) for each in found} == {(100, 2, 107)}
    rows = [row(ids[0], "a", found[0]), row(ids[1], "a", found[1]), row(ids[2], "a", found[2], "failed")]
    assert rows[1].metric == ("loss", 1.0)
    assert summarise(rows) == [
        Mean("a", CHOSEN, "loss", 0.5, pytest.approx(0.5**0.5), 2, 3), Mean("a", "validation", "loss", 9.0, 0.0, 2, 3),
    ]  # fmt: skip


def write_checkpoint(folder: Path, size: int) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"step": 4, "files": [{"path": "weights", "size": size}]}))


def test_a_run_that_is_not_there_is_lost_and_has_nothing(paths: BoxPaths) -> None:
    (found,) = ask(paths, ["a-20260102-142030-0000"])
    assert found.status.cause == "folder_deleted" and not found.measured and not found.checkpoints


@pytest.mark.parametrize("seed", range(20))
def test_a_file_that_grows_by_any_pieces_is_read_as_one_that_is_there_as_a_whole(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader goes on where it was: it must not lose or repeat a line, whatever it saw of it before."""
    monkeypatch.setattr(evaluations, "MAX_EVENT", 400)
    draw = random.Random(f"grows-{seed}")
    lines = [event(draw) for _ in range(draw.randint(1, 30))]
    whole = b"".join(line + b"\n" for line in lines)
    file = tmp_path / "events.jsonl"
    at = 0
    while at < len(whole):
        more = draw.randint(1, 500)
        with file.open("ab") as target:
            target.write(whole[at : at + more])
        at += more
        last_of_each_name(str(file))
    together = tmp_path / "together"
    together.write_bytes(whole)
    kept: dict[str, Any] = {}
    for line in lines:
        value = json.loads(line)
        if len(line) < 400 and value["type"] == "eval":
            kept[value["name"]] = {name: value[name] for name in ("name", "step", "metrics")}
    assert last_of_each_name(str(file)) == last_of_each_name(str(together)) == list(kept.values())


def event(draw: random.Random) -> bytes:
    padding = "x" * draw.choice([0, 0, 0, 500, 1500])
    kind = draw.choice(["eval", "step"])
    value = {
        "type": kind,
        "name": draw.choice("abc"),
        "step": draw.randint(0, 9),
        "metrics": {"loss": draw.random()},
        "more": padding,
    }
    return json.dumps(value).encode()
