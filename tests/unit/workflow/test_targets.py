"""What a TARGET stands for, and what an evaluation on a box sends of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import store
from runner.domain.errors import UnknownRun, UserError
from runner.domain.job import Hub, Job
from runner.domain.run import Run
from runner.workflow.inference.evaluate import Asked
from runner.workflow.inference.evaluate_on_box import job_of
from runner.workflow.inference.targets import Meant, meaning_of, path_in_outputs

RUN = "brie-20260102-142030-7f3a"


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one run, whose base is on the Hub, and two model folders."""
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    settings = {"model": "org/base", "revision": "abc", "completion_field": "out"}
    store.create(
        Run(RUN, Job("brie", recipe="sft", settings=settings), "box", 1767363630.0, launched=True, attempted=True)
    )
    for name, file in (("plain", "config.json"), ("two/a", "config.json"), ("two/b", "config.json")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "out": "b"}\n')
    return tmp_path


def test_folders_runs_checkpoints_and_models_of_the_hub_are_told_apart(laptop: Path) -> None:
    assert meaning_of("./plain") == Meant("./plain", laptop / "plain")
    run = store.load(RUN)
    assert meaning_of("brie") == Meant("brie", None, run)
    assert meaning_of(f"{RUN}:step-000100") == Meant(f"{RUN}:step-000100", None, run, "step-000100")
    assert meaning_of("org/model") == Meant("org/model", repository="org/model")


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [
        ("./none", UserError, "no folder"),
        ("data.jsonl", UserError, "no folder"),
        ("two", UserError, "2 models below two"),
        ("nobody", UnknownRun, "nobody"),
        ("nobody:step-1", UnknownRun, "nobody"),
        ("brie:../../x", UserError, "name of a checkpoint"),
        ("brie:", UserError, "name of a checkpoint"),
        ("a/b/c", UnknownRun, "a/b/c"),
    ],
)
def test_what_it_cannot_mean_is_explained(laptop: Path, named: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        meaning_of(named)


def test_where_a_checkpoint_lies_in_the_outputs_on_a_box(laptop: Path) -> None:
    for word, place in (
        ("brie", "models/best"), ("brie:step-000100", "checkpoints/step-000100"), ("brie:results/checkpoint-5", "results/checkpoint-5"),
    ):  # fmt: skip
        assert path_in_outputs(meaning_of(word)) == place
    with pytest.raises(UserError, match="brie:latest: which checkpoint is the latest"):
        path_in_outputs(meaning_of("brie:latest"))


def test_the_job_reads_on_the_box_what_its_runs_wrote(laptop: Path) -> None:
    targets = [meaning_of(each) for each in ("brie:step-000100", "brie", "plain", "org/model@v2")]
    job = job_of(Asked(("brie",), Path("data.jsonl")), targets)
    assert {place: str(output) for place, output in job.run_outputs.items()} == {
        "models/1": f"run:{RUN}/checkpoints/step-000100",
        "models/2": f"run:{RUN}/models/best",
    }
    assert job.data_places == {"data/data.jsonl": laptop / "data.jsonl", "models/3": laptop / "plain"}
    assert [(each["folder"], each["base"], each["base_revision"]) for each in job.settings["models"]] == [
        ("models/1", "org/base", "abc"), ("models/2", "org/base", "abc"), ("models/3", None, None), ("org/model", None, None),
    ]  # fmt: skip
    assert [each["revision"] for each in job.settings["models"]] == [None, None, None, "v2"]
    assert job.hub == Hub(models=("org/base", "org/model")) and job.resources.gpus == 1
    assert job.settings["answer_field"] == "out" and job.settings["data"] == "data/data.jsonl"
    assert job_of(Asked(("plain",), Path("data.jsonl"), device="cpu"), targets[2:3]).resources.gpus == 0
