"""``run:ID/path`` in a job file: as data, and as a setting, which becomes data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.domain.job import DataFrom, RunOutput
from runner.domain.recorded_job import read_job
from runner.jobfile import InvalidJobFile, load

RUN = "brie-20260102-142030-7f3a"


def write(tmp_path: Path, **fields: Any) -> Path:
    (tmp_path / "main.py").write_text("print(1)\n")
    (tmp_path / "tiny").mkdir(exist_ok=True)
    (tmp_path / "tiny/config.json").write_text("{}")
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    (tmp_path / "job.json").write_text(json.dumps({"name": "a", **fields}))
    return tmp_path / "job.json"


def command(tmp_path: Path, data: list[Any]) -> Path:
    return write(tmp_path, command=["python", "main.py"], data=data)


def recipe(tmp_path: Path, name: str, data: tuple[Any, ...] = (), **settings: Any) -> Path:
    given = {"model": "./tiny", "train": "pairs.jsonl", **settings}
    return write(tmp_path, recipe=name, data=["tiny", "pairs.jsonl", *data], settings=given)


def problems(file: Path) -> str:
    with pytest.raises(InvalidJobFile) as refused:
        load(file)
    return "\n".join(problem.message for problem in refused.value.problems)


def test_data_of_a_run_has_its_last_name_or_the_one_that_is_written(tmp_path):
    job = load(
        command(tmp_path, [f"run:{RUN}/out/best", {"path": f"run:{RUN}/table.csv", "as": "data/t.csv"}, "pairs.jsonl"])
    )
    assert job.run_outputs == {"best": RunOutput(RUN, "out/best"), "data/t.csv": RunOutput(RUN, "table.csv")}
    assert list(job.data_places) == ["pairs.jsonl"]
    assert f"data pairs.jsonl, run:{RUN}/out/best" in job.summary
    recorded = read_job(json.loads(json.dumps(job.wire())), job.folder, None, ())
    assert recorded.run_outputs == job.run_outputs and recorded.data == job.data


@pytest.mark.parametrize("name", ["sft", "classify", "preference"])
def test_an_adapter_of_a_run_is_its_model_and_becomes_data(tmp_path, name):
    job = load(recipe(tmp_path, name, adapter=f"run:{RUN}"))
    place = f"from-runs/{RUN}/models/best"
    assert job.settings["adapter"] == place
    assert job.data[-1] == DataFrom(f"run:{RUN}/models/best", place)
    again = load(recipe(tmp_path, name, tuple(job.wire()["data"][2:]), adapter=place))
    assert again.run_outputs == job.run_outputs and again.settings["adapter"] == place


def test_a_setting_takes_the_place_that_data_gives_the_same_output(tmp_path):
    data = ({"path": f"run:{RUN}/models/best", "as": "start"},)
    job = load(recipe(tmp_path, "sft", data, adapter=f"run:{RUN}"))
    assert job.settings["adapter"] == "start" and list(job.run_outputs) == ["start"]
    assert load(recipe(tmp_path, "sft", data, adapter="start")).settings["adapter"] == "start"
    job = load(
        recipe(tmp_path, "sft", train=f"run:{RUN}/reports/answers.jsonl", test=f"run:{RUN}/reports/answers.jsonl")
    )
    assert job.settings["train"] == job.settings["test"] == f"from-runs/{RUN}/reports/answers.jsonl"
    assert len(job.run_outputs) == 1


def test_what_names_no_output_of_a_run_is_a_problem_at_its_line(tmp_path):
    assert "needs the whole id of a run" in problems(command(tmp_path, ["run:brie/models/best"]))
    assert f"write what the run wrote, such as run:{RUN}/models/best" in problems(command(tmp_path, [f"run:{RUN}"]))
    assert "write what the run wrote" in problems(command(tmp_path, [{"path": f"run:{RUN}/../x", "as": "x"}]))
    assert "is already sent with" in problems(command(tmp_path, [f"run:{RUN}/a/best", f"run:{RUN}/b/best"]))
    assert "settings.adapter: 'run:brie' needs the whole id" in problems(recipe(tmp_path, "sft", adapter="run:brie"))
    assert "settings.train: " in problems(recipe(tmp_path, "sft", train=f"run:{RUN}"))
    assert "is not sent: add it to data:" in problems(recipe(tmp_path, "sft", adapter="main.py"))


def test_a_sweep_starts_from_several_runs(tmp_path):
    from runner.jobfile.load import load_runs

    other = "brie-20260103-142030-0000"
    file = recipe(tmp_path, "sft", adapter=f"run:{RUN}")
    job = {**json.loads(file.read_text()), "sweep": {"settings.adapter": [f"run:{RUN}", f"run:{other}"]}}
    file.write_text(json.dumps(job))
    found = [run for run, _ in load_runs(file)]
    assert [list(each.run_outputs.values()) for each in found] == [
        [RunOutput(RUN, "models/best")],
        [RunOutput(other, "models/best")],
    ]
