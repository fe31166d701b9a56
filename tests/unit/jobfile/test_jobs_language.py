"""The job files of the language models: valid beside data in their format, and with only model and data swapped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner.jobfile.load import load

JOBS = Path(__file__).resolve().parents[3] / "jobs"
DATA = {
    "brie": ["brie.jsonl"],
    "edgejson": ["edgejson_train_v2.jsonl", "edgejson_test_v2.jsonl"],
    "brie_preference": ["brie_pairs.jsonl"],
}


@pytest.fixture
def project(tmp_path):
    """A folder as a user has it: jobs/, data/, an adapter that was fetched, and a small model."""
    shutil.copytree(JOBS, tmp_path / "jobs", ignore=shutil.ignore_patterns("demo*"))
    (tmp_path / "data").mkdir()
    for name in (file for files in DATA.values() for file in files):
        (tmp_path / "data" / name).write_text("{}\n")
    for folder in ("adapters/brie", "small"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("brie", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("edgejson", "HuggingFaceTB/SmolLM2-135M"),
        ("brie_preference", "Qwen/Qwen2.5-0.5B-Instruct"),
    ],
)
def test_a_job_names_the_real_model_and_is_valid_as_it_stands(project, name, model):
    job = load(project / "jobs" / f"{name}.yaml")
    assert job.settings["model"] == model and model in job.hub.models
    assert all(f"data/{file}" in job.data for file in DATA[name])


@pytest.mark.parametrize("name", DATA)
def test_only_model_and_data_need_to_be_swapped_for_a_small_run(project, name):
    plain = load(project / "jobs" / f"{name}.yaml")
    data = ", ".join([*plain.data, "small"])
    job = load(project / "jobs" / f"{name}.yaml", ["settings.model=small", f"data=[{data}]"])
    assert job.settings == {**plain.settings, "model": "small"}
    assert not job.hub.models


def test_brie_goes_on_from_a_checkpoint_with_evaluation_off_by_overrides_alone(project):
    off = ["settings.evaluation.every_steps=null", "settings.evaluation.every_epochs=null"]
    job = load(project / "jobs" / "brie.yaml", ["settings.resume=step-000100", *off])
    assert job.settings["resume"] == "step-000100"
    assert job.settings["evaluation"]["every_steps"] is job.settings["evaluation"]["every_epochs"] is None


def test_edgejson_has_the_reports_figures(project):
    settings = load(project / "jobs" / "edgejson.yaml").settings
    assert settings["lora"]["rank"] == 16 and len(settings["lora"]["targets"]) == 7
    steps_an_epoch = -(-(629 - round(629 * settings["validation_share"])) // settings["batch"]["size"])
    assert steps_an_epoch * settings["epochs"] == 48
