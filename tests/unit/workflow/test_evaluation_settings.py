"""What the command line and a run's job make of an evaluation's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_payload.settings.evaluate import EvaluateSettings
from runner.domain.errors import UserError
from runner.domain.job import Job
from runner.domain.run import Run
from runner.workflow.inference.evaluation_settings import evaluation_settings, ways

MODEL = {"name": "m", "folder": "/m", "base": None}


def settings(*overrides: str, run: Run | None = None, grid: tuple[str, ...] = (), **chosen: object) -> EvaluateSettings:
    return evaluation_settings([MODEL], Path("d.jsonl"), run, overrides=overrides, grid=grid, **chosen)


def run(**given: object) -> Run:
    return Run("brie-20260102-142030-7f3a", Job("brie", recipe="sft", settings=given), "local", 0.0)


def test_the_command_line_is_over_the_job_of_the_run() -> None:
    job = run(completion_field="out", json_extraction=True, generation={"max_new_tokens": 40, "examples": 3})
    found = settings(run=job)
    assert (found.answer_field, found.json_answers, found.asking[0].max_new_tokens) == ("out", True, 40)
    found = settings("answer_field=other", "json_answers=false", run=job, grid=("max_new_tokens=7",), samples=2)
    assert (found.answer_field, found.json_answers, found.asking[0].max_new_tokens) == ("other", False, 7)
    assert found.samples == 2 and Path(found.data).is_absolute()


def test_a_grid_is_every_combination_and_a_single_value_is_in_no_name(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"You are {name}.\n", encoding="utf-8")
    prompts = f"system_prompt={tmp_path / 'a.txt'},{tmp_path / 'b.txt'}"
    found = ways(["temperature=0.3,0.75", prompts, "top_p=0.9"], {"max_new_tokens": 5})
    assert [way["name"] for way in found] == [
        f"temperature={heat} system_prompt={name}" for heat in ("0.3", "0.75") for name in ("a.txt", "b.txt")
    ]
    assert found[1] == {
        "name": "temperature=0.3 system_prompt=b.txt", "max_new_tokens": 5, "temperature": 0.3,
        "system_prompt": "You are b.txt.", "top_p": 0.9,
    }  # fmt: skip
    assert ways([], {}) == [{"name": ""}]


@pytest.mark.parametrize(
    ("overrides", "grid", "message"),
    [
        (("answr_field=x",), (), "did you mean answer_field"),
        (("samples=many",), (), "samples: expected a whole number"),
        (("samples",), (), "expected KEY=VALUE"),
        ((), ("heat=1",), "expected NAME=VALUE"),
        ((), ("temperature=",), "expected NAME=VALUE"),
        ((), ("temperature=warm",), "no number"),
        ((), ("temperature=1", "temperature=2"), "twice"),
        ((), ("temperature=-1",), "temperature: must be at least 0"),
        ((), ("system_prompt=/none.txt",), "cannot be read"),
        (("prompt_template=@/none.txt",), (), "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_explained(overrides: tuple[str, ...], grid: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(*overrides, grid=grid)


def test_a_template_is_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Read: {prompt}\nJSON:\n", encoding="utf-8")
    assert settings(f"prompt_template=@{tmp_path / 't.txt'}").prompt_template == "Read: {prompt}\nJSON:"
    assert settings("prompt_template={a}: {b}").prompt_template == "{a}: {b}"
