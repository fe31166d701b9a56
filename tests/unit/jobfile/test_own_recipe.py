"""`gpurun validate` of a job whose recipe is a file of the user's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner.jobfile import examine, load
from runner.jobfile.schema import json_schema
from runner.workflow.submission.plan import make_plan

JOBS = Path(__file__).resolve().parents[3] / "jobs"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The example, with its data."""
    (tmp_path / "jobs").mkdir()
    shutil.copytree(JOBS / "distil", tmp_path / "jobs" / "distil")
    shutil.copy(JOBS / "distil.yaml", tmp_path / "jobs")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "brie.jsonl").write_text("{}\n")
    return tmp_path / "jobs" / "distil.yaml"


def problems(file: Path, *overrides: str) -> list[str]:
    return [str(problem) for problem in examine(str(file), list(overrides))[1]]


def test_the_example_is_sent_with_its_code_and_its_models_are_checked(file: Path) -> None:
    job = load(file)
    assert job.pushes_code and job.settings["temperature"] == 2.0 and job.settings["optimizer"]["beta1"] == 0.9
    assert job.hub.models == ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct")
    plan = make_plan(job)
    assert plan.code is not None and plan.payload is not None and "torch" in plan.requirements.locked


def test_its_settings_are_checked_as_a_built_in_one_s(file: Path) -> None:
    assert "temperature must be greater than 0" in problems(file, "settings.temperature=0")[0]
    assert "temprature" in problems(file, "settings.temprature=1")[0]
    assert "no metric 'f2'" in problems(file, "settings.evaluation.metric=f2")[0]


def test_an_error_in_the_recipe_file_has_its_place(file: Path) -> None:
    recipe = file.parent / "distil" / "recipe.py"
    recipe.write_text(recipe.read_text().replace("gt=0)", "gt=zero)"))
    found = problems(file)
    assert len(found) == 1 and "recipe.py:17:" in found[0] and "NameError" in found[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [("./other.py", "cannot be read"), ("../x.py", "not in the code folder"), ("distil", "./my_recipe.py")],
)
def test_a_recipe_that_is_not_there_is_refused_at_its_line(file: Path, name: str, words: str) -> None:
    file.write_text(file.read_text().replace("./recipe.py ", f"{name} "))
    found = problems(file)
    assert len(found) == 1 and ":8:9: " in found[0] and words in found[0]


def test_the_schema_for_editors_takes_a_file_with_any_settings() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json_schema())
    assert check.is_valid({"name": "x", "recipe": "./mine.py", "settings": {"temperature": 1}})
    assert not check.is_valid({"name": "x", "recipe": "mine", "settings": {}})
