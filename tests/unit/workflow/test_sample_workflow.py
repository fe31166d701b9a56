"""What ``gpurun sample`` makes of its arguments and of what a model's process prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from remote_payload.recipes.answers import Answer, Answered, Classified, Loaded, error_line, to_line
from remote_payload.settings.generation import Answering
from remote_payload.settings.sample import SampleSettings
from runner import store
from runner.domain.errors import ArtifactError, UserError
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run, mint_id
from runner.workflow.inference import sample as module
from runner.workflow.inference.answering import answering, answering_of, text_of
from runner.workflow.inference.sample import BRING, LIVELY, Chosen, choose, read_messages, read_prompts, trying
from runner.workflow.inference.targets import Meant, bring, checkpoint_here

ANSWERED = Answered("a", (Answer(False, 1, "b", 3, 0.5, True),))


def record(job: Job, outputs: Path | None = None) -> Run:
    run = Run(mint_id(job.name), job, "local", 0.0, fetched_into=str(outputs) if outputs else None)
    run.attempted = run.launched = True
    store.create(run)
    return run


@pytest.fixture(autouse=True)
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fetched(tmp_path: Path) -> Run:
    """A run of a recipe with two checkpoints and its model here."""
    outputs = tmp_path / "outputs"
    for name in ("checkpoints/step-000004", "checkpoints/step-000012", "models/best"):
        (outputs / name).mkdir(parents=True)
        (outputs / name / "manifest.json").write_text(json.dumps({"step": 1, "files": []}))
    return record(Job("london", recipe="pretrain"), outputs)


def test_prompts_come_from_a_text_file_or_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"text": "t\\nwo"}\n')
    assert read_prompts(tmp_path / "a.txt") == ["one", "two"]
    assert read_prompts(tmp_path / "a.jsonl") == ["one", "t\nwo"]


def test_a_prompt_file_that_makes_no_sense_has_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"question": "two"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: not an object"):
        read_prompts(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="No such file"):
        read_prompts(tmp_path / "none.txt")


def test_the_latest_here_is_the_newest_checkpoint_and_best_the_finished_model(fetched: Run, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    assert checkpoint_here(fetched, "latest", hint=BRING) == outputs / "checkpoints" / "step-000012"
    assert checkpoint_here(fetched, "step-000004", hint=BRING) == outputs / "checkpoints" / "step-000004"
    assert checkpoint_here(fetched, "best", hint=BRING) == outputs / "models" / "best"


def test_one_that_was_not_fetched_says_where_it_can_be_tried(fetched: Run) -> None:
    with pytest.raises(ArtifactError, match="here are: step-000004, step-000012, best") as refused:
        checkpoint_here(fetched, "step-000008", hint=BRING)
    assert "--on-box" in refused.value.hint


@pytest.mark.parametrize(
    ("named", "option", "checkpoint", "on_box"),
    [
        (None, None, "latest", False),
        ("london", None, "latest", False),
        ("london", "best", "best", False),
        ("london:step-000004", None, "step-000004", False),
        ("london:best", None, "best", False),
        ("london", "step-000008", "step-000008", True),
        ("london:step-000008", None, "step-000008", True),
    ],
)
def test_what_is_here_is_asked_here(
    fetched: Run, named: str | None, option: str | None, checkpoint: str, on_box: bool
) -> None:
    chosen = choose(named, option, on_box=False)
    assert (chosen.meant.checkpoint, chosen.on_box) == (checkpoint, on_box)
    assert chosen.name == f"{fetched.run_id}:{checkpoint}"
    assert choose(named, option, on_box=True).on_box


def test_a_model_that_is_no_run_has_no_checkpoints_and_no_box(fetched: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    for named in ("./mine", "org/model"):
        assert not choose(named, None, on_box=False).on_box
        for options in ({"checkpoint": "best", "on_box": False}, {"checkpoint": None, "on_box": True}):
            with pytest.raises(UserError, match="is not a run"):
                choose(named, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="names a checkpoint already"):
        choose("london:best", "best", on_box=False)


def test_a_checkpoint_of_another_program_is_a_model_by_its_path(tmp_path: Path) -> None:
    """What the Trainer wrote, fetched: its receipt is that of a fetch."""
    from runner.domain.answers.manifest import Artifact
    from runner.workflow.fetching.receipt import Receipt

    outputs = tmp_path / "fetched"
    receipt = Receipt(outputs)
    for step in (500, 1000):
        folder = outputs / "results" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
        (folder / "trainer_state.json").write_text("{}")  # as the Trainer does, last
        for file in folder.iterdir():
            receipt.note(Artifact(f"results/checkpoint-{step}/{file.name}", file.stat().st_size, "0" * 64))
    receipt.save()
    run = record(Job("mine", command=("python", "train.py")), outputs)
    for word, step in (("mine", 1000), ("mine:results/checkpoint-500", 500)):
        chosen = choose(word, None, on_box=False)
        assert not chosen.on_box
        assert bring(chosen.meant, Silent()).folder == outputs / "results" / f"checkpoint-{step}"
    assert run.job.recipe is None


@pytest.mark.parametrize(
    ("job", "found"),
    [
        (Job("a", recipe="sft"), Answering()),
        (
            Job("a", recipe="sft", settings={"generation": {"temperature": 0.7, "examples": 3}}),
            Answering(temperature=0.7),
        ),
        (
            Job("a", recipe="preference", settings={"generation": {"system_prompt": "Be brief."}}),
            Answering(system_prompt="Be brief."),
        ),
        (Job("a", recipe="pretrain"), None),
        (Job("a", recipe="classify"), None),
        (Job("a", recipe="./own.py", settings={"generation": {"top_p": 0.5}}), Answering(top_p=0.5)),
        (Job("a", command=("python", "x.py")), None),
    ],
)
def test_a_run_answers_as_in_its_own_reports(job: Job, found: Answering | None) -> None:
    run = record(job)
    assert answering_of(run) == found
    assert answering(answering_of(run), {"top_p": None, "temperature": None}, LIVELY) == (found or LIVELY)
    said = answering(answering_of(run), {"temperature": 1.5, "system_prompt": ""}, LIVELY)
    assert (said.temperature, said.system_prompt, said.top_p) == (1.5, "", (found or LIVELY).top_p)


def test_a_text_is_itself_or_what_is_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("You are Ada.\nBe brief.\n")
    assert text_of("Be brief.", "--system-prompt") == "Be brief."
    assert text_of(f"@{tmp_path / 'a.txt'}", "--system-prompt") == "You are Ada.\nBe brief."
    with pytest.raises(UserError, match=r"--system-prompt: none\.txt cannot be read"):
        text_of("@none.txt", "--system-prompt")


def test_the_same_answer_several_times_is_refused_before_anything_is_loaded() -> None:
    chosen = Chosen(Meant("a", run=record(Job("a", recipe="sft"))), on_box=False)
    with (
        pytest.raises(UserError, match="3 samples at temperature 0") as refused,
        trying(chosen, SampleSettings(samples=3), {}, ["x"], Silent()),
    ):
        pass
    assert "--temperature" in refused.value.hint


@pytest.mark.parametrize(
    ("loaded", "settings", "told", "words"),
    [
        (Loaded("m", "classifier", "cpu"), SampleSettings(samples=2), {}, "is a classifier"),
        (Loaded("m", "classifier", "cpu"), SampleSettings(), {"temperature": 0.5}, "is a classifier"),
        (Loaded("m", "causal_lm", "cpu"), SampleSettings(), {"system_prompt": "Hi"}, "no place"),
        (Loaded("m", "causal_lm", "cpu"), SampleSettings(), {"system_prompt": ""}, None),
        (Loaded("m", "causal_lm", "cpu", chat=True), SampleSettings(), {"system_prompt": "Hi"}, None),
        (Loaded("m", "classifier", "cpu"), SampleSettings(), {"temperature": None}, None),
    ],
)
def test_what_a_model_has_no_use_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, loaded: Loaded, settings: SampleSettings, told: dict[str, Any], words: str | None
) -> None:
    """stand_in for the process: it says that this model was loaded."""
    from contextlib import contextmanager

    @contextmanager
    def here(*_: object) -> Any:
        yield loaded, iter([ANSWERED])

    monkeypatch.setattr(module, "_here", here)
    with_it = trying(Chosen(Meant("m"), on_box=False), settings, told, ["x"], Silent())
    if words is None:
        with with_it as tried:
            assert list(tried.answered) == [ANSWERED]
    else:
        with pytest.raises(UserError, match=words), with_it:
            pass


def test_answers_are_read_among_whatever_else_is_printed() -> None:
    loaded = Loaded("step-000012", "causal_lm", "cpu", metrics={"loss": 3.25})
    classes = Answered("x", classified=Classified("A", 0.5, {"A": 0.5}, None, None, False, 0.1))
    lines = [
        "a warning of some library",
        '{"ready": true}',
        to_line(loaded),
        "[1, 2]",
        to_line(ANSWERED),
        to_line(classes),
    ]
    assert list(read_messages(lines)) == [loaded, ANSWERED, classes]


def test_an_error_of_the_process_is_the_users_and_carries_no_control_sequences() -> None:
    with pytest.raises(ArtifactError, match="there is no checkpoint") as refused:
        list(read_messages([error_line("there is no checkpoint\x1b]52;c;x\x07 y")]))
    assert "\x1b" not in refused.value.message
