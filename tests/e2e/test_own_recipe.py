"""jobs/distil.yaml as it is, over SSH, in tiny form: a recipe of the user's own from `validate` to the smoke test."""

import shutil
from pathlib import Path

from tests.support.cli import REPOSITORY, Gpurun
from tests.support.models.language_data import conversations, write_lines
from tests.support.models.tiny_models import save_tiny_model

TINY = {
    "data": "[{path: ../../data/brie.jsonl, as: data/brie.jsonl}, {path: ../../data/model, as: data/model}]",
    "settings.model": "data/model",
    "settings.teacher": "data/model",
    "settings.max_length": 64,
    "settings.max_steps": 3,
    "settings.batch.size": 8,
    "resources": "{gpus: 0, disk: 1GiB}",
}


def test_a_recipe_of_the_user_s_own_runs_and_its_model_is_tested_at_home(gpurun: Gpurun, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(REPOSITORY / "jobs" / "distil", project / "jobs" / "distil")
    shutil.copy(REPOSITORY / "jobs" / "distil.yaml", project / "jobs")
    save_tiny_model("qwen2", project / "data" / "model")
    write_lines(project / "data" / "brie.jsonl", conversations(40))
    file, tiny = str(project / "jobs" / "distil.yaml"), [f"--set={key}={value}" for key, value in TINY.items()]

    wrong = gpurun("submit", file, "--host", "local", *tiny, "--set", "settings.temperature=-1", check=2)
    assert "settings.temperature must be greater than 0" in wrong.stderr
    (submitted,) = gpurun.json("submit", file, "--host", "local", *tiny)["runs"]
    log = gpurun("logs", submitted["run_id"], "-f").stdout
    assert "step 3" in log, log
    gpurun("fetch")
    assert "ok" in gpurun("smoke-test", "--device", "cpu").stdout
