"""jobs/mayors.yaml as it is, over SSH, in tiny form: a sweep of runs, one experiment, the first kept and the rest deleted."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY, Gpurun
from tests.support.models.tiny_models import save_tiny_model

TINY = {
    "data": "[datasets, data/olmo]",
    "settings.model": "data/olmo",
    "settings.revision": "null",
    "settings.dataset": "datasets/mayors.json",
    "settings.max_length": 64,
    "sweep": '{"settings.seed": [0, 1]}',
    "resources": "{gpus: 0, disk: 1GiB}",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The repository's job file beside a tiny Olmo and a small structured dataset."""
    folder = tmp_path / "project"
    (folder / "jobs").mkdir(parents=True)
    shutil.copy(REPOSITORY / "jobs" / "mayors.yaml", folder / "jobs")
    save_tiny_model("olmo2", folder / "data" / "olmo", chat=False)
    documents = [f"The mayor of town {town} was called Brown, and counted {town} ships." for town in range(24)]
    questions = [{"prompt": f"The mayor of town {town} was called", "completion": " Brown"} for town in range(4)]
    content = {
        "document_dataset": {"docs": [{"prompt": "", "completion": text} for text in documents]},
        "eval_dataset_builders": {name: {"eval_points": questions, "metrics": []} for name in ("first", "second")},
    }
    (folder / "datasets").mkdir()
    (folder / "datasets" / "mayors.json").write_text(json.dumps(content))
    return folder / "jobs" / "mayors.yaml"


def test_a_sweep_runs_is_counted_and_cleaned(gpurun: Gpurun, project: Path) -> None:
    tiny = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    runs = [run["run_id"] for run in gpurun.json("submit", str(project), "--host", "local", *tiny)["runs"]]
    assert [run[: len("mayors-seed-0")] for run in runs] == ["mayors-seed-0", "mayors-seed-1"]
    for run in runs:
        log = gpurun("logs", run, "-f").stdout
        assert "evaluation: 2 sets, 8 questions" in log and "eval validation at step 0" in log

    listed = gpurun.json("checkpoints", runs[0])["checkpoints"]
    assert listed[0]["step"] == 0 and [each["resumable"] for each in listed[:-1]].count(True) == 1
    into = project.parent / "home"
    gpurun("fetch", runs[0], "--into", str(into))
    history = json.loads((into / "reports" / "experiment_log.json").read_text())
    assert history["settings"]["seed"] == 0 and set(history["evaluations"][0]["sets"]) == {"first", "second"}

    for run in runs:  # at home or not, the first to finish stays on the box
        gpurun("fetch", run)
    gone = gpurun.json("clean", "--host", "local", "--experiment", "mayors", "--keep", "1", "--yes")
    removed = [run for run in runs if f"runs/{run}" in [item["path"] for item in gone["removed"]]]
    assert len(removed) == 1  # they ran side by side, so either may have been the first to finish
    assert [gpurun.box_run(run).exists() for run in runs] == [run not in removed for run in runs]
