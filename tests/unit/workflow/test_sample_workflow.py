"""What ``gpurun sample`` makes of its arguments and of what a model's process prints."""

import json

import pytest

from remote_payload.recipes.answers import Answer
from runner.domain.errors import ArtifactError, UserError
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.local_model.messages import Sampling
from runner.workflow.inference.sample import BRING, SampleOptions, _read, is_here, read_prompts
from runner.workflow.inference.targets import checkpoint_here


def record(fetched_into=None) -> Run:
    return Run("london-20260102-142030-7f3a", Job("london"), "local", 0.0, fetched_into=fetched_into)


@pytest.fixture
def fetched(tmp_path):
    for name in ("checkpoints/step-000004", "checkpoints/step-000012", "models/best"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text(json.dumps({"step": 1, "files": []}))
    return record(str(tmp_path))


def test_prompts_come_from_a_text_file_or_json_lines(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"prompt": "t\\nwo"}\n')
    assert read_prompts(tmp_path / "a.txt") == ["one", "two"]
    assert read_prompts(tmp_path / "a.jsonl") == ["one", "t\nwo"]


def test_a_prompt_file_that_makes_no_sense_has_a_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"text": "two"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: not an object"):
        read_prompts(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="No such file"):
        read_prompts(tmp_path / "none.txt")


def test_the_latest_here_is_the_newest_checkpoint_and_best_the_finished_model(fetched, tmp_path):
    assert checkpoint_here(fetched, "latest", hint=BRING) == tmp_path / "checkpoints" / "step-000012"
    assert checkpoint_here(fetched, "step-000004", hint=BRING) == tmp_path / "checkpoints" / "step-000004"
    assert checkpoint_here(fetched, "best", hint=BRING) == tmp_path / "models" / "best"


def test_one_that_was_not_fetched_says_where_it_can_be_tried(fetched):
    with pytest.raises(ArtifactError, match="here are: step-000004, step-000012, best") as refused:
        checkpoint_here(fetched, "step-000008", hint=BRING)
    assert "--on-box" in refused.value.hint


@pytest.mark.parametrize(("name", "here"), [("latest", True), ("step-000004", True), ("step-000008", False)])
def test_what_is_here_is_asked_here(fetched, name, here):
    assert is_here(fetched, name) is here
    assert is_here(record(), name) is False


def test_answers_are_read_among_whatever_else_is_printed():
    lines = [
        "a warning of some library",
        json.dumps({"loaded": {"model": "step-000012", "device": "cpu", "metrics": {"loss": 3.25}}}),
        "[1, 2]",
        json.dumps({"prompt": "a", "text": "b", "tokens": 3, "seconds": 0.5, "ended": True}),
    ]
    notes = []
    reporter = Silent()
    reporter.note = notes.append
    assert list(_read(lines, reporter)) == [Answer("a", "b", 3, 0.5, True)]
    assert notes == ["step-000012 on cpu (loss 3.25)"]


def test_an_error_of_the_process_is_the_users_and_carries_no_control_sequences():
    with pytest.raises(ArtifactError, match="there is no checkpoint") as refused:
        list(_read([json.dumps({"error": "there is no checkpoint\x1b]52;c;x\x07 y"})], Silent()))
    assert "\x1b" not in refused.value.message


def test_every_choice_reaches_the_module():
    from remote_payload.recipes.sample import parse

    ask = SampleOptions("best", True, "cpu", Sampling(7, 0.5, 0.9, 1.2, 3))
    parsed = parse(["--outputs", "o", "--checkpoint", ask.checkpoint, *ask.arguments()])
    assert (parsed.checkpoint, parsed.base, parsed.device, parsed.max_new_tokens) == ("best", True, "cpu", 7)
    assert (parsed.temperature, parsed.top_p, parsed.repetition_penalty, parsed.seed) == (0.5, 0.9, 1.2, 3)
