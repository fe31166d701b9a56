"""Requests and messages are read as they were written, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remote_payload.recipes.answers import Answer, Answered, Classified, Loaded, error_line, to_line
from remote_payload.settings.generation import Answering
from remote_payload.settings.predict import PredictSettings
from remote_payload.settings.sample import SampleSettings
from runner.domain.answers.reading import Impossible
from runner.local_model.lines import (
    message_line,
    prompt_line,
    read_message,
    read_prompt,
    read_request,
    request_line,
)
from runner.local_model.messages import (
    Evaluated,
    EvaluateRequest,
    Exported,
    ExportRequest,
    Failure,
    Measured,
    Message,
    Predictions,
    PredictRequest,
    PredictResult,
    Progress,
    PromptForm,
    Request,
    RowDifference,
    SampleRequest,
    SmokeRequest,
    SmokeResult,
)

SMOKE = SmokeRequest(
    folder=Path("/ü\n/model"),
    base=None,
    described=True,
    kind="classifier",
    adapter=False,
    device="cpu",
    dtype="float32",
    labels=("a", "b"),
    max_length=8,
    inputs=Path("/inputs"),
    expected=None,
)
SAMPLE = SampleRequest(
    "mine",
    Path("/model"),
    Path("/base"),
    "bfloat16",
    SampleSettings(True, 3, 7, "auto", Answering(7, 0.5, 0.9, 1.2, "Be\nshort.")),
)
EXPORT = ExportRequest(SMOKE, Path("/new/model"), "bfloat16", Path("/questions"), True)
PREDICT = PredictRequest(
    "mine", Path("/model"), None, "classifier", "cpu", "float32",
    PredictSettings(["/a b.csv"], "/out.csv", "text", ["id"], "mark", Answering(7, 0.5, 0.9, 1.2, "Be short."), 3), True,
)  # fmt: skip
PREDICTED = PredictResult("cpu", 9, 1, 2, {"LEGAL": 8}, 4, 0.5, 1 << 40, ("a.csv:7: no",))
RESULT = SmokeResult(
    device="cuda",
    device_name="a GPU",
    torch="2.9",
    load_seconds=0.25,
    peak_memory=1 << 40,
    predictions=Predictions(
        samples=2,
        seconds=0.5,
        counts=(1, 1),
        tokens=9,
        texts=("a\tb", ""),
        comparison=Measured((RowDifference(6e38, 0.25, "a", "b"), RowDifference(0.0, None)), 1.5, 1, 2),
    ),
)
LOADED = Loaded("step-000004", "causal_lm", "cpu", True, None, 4, {"loss": 1.5})
ANSWER = Answered(
    "one\ntwo\x1b", (Answer(True, 1, "ü \u2028" * 5000, 3, 0.125, True), Answer(False, 1, "", 0, 0.0, False))
)
CLASSES = Answered("", classified=Classified("A", 0.75, {"A": 0.75, "B": 0.25}, True, 0.75, False, 0.5))
EVALUATE = EvaluateRequest({"models": [{"name": "a"}], "samples": 2}, Path("/out"))


@pytest.mark.parametrize(
    "request_", [SMOKE, SAMPLE, PREDICT, EXPORT, EVALUATE], ids=["smoke", "sample", "predict", "export", "evaluate"]
)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    line = request_line(request_)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert read_request(line) == request_


def test_a_prompt_is_read_as_it_was_written() -> None:
    assert read_prompt(prompt_line("one\ntwo ü")) == "one\ntwo ü"


@pytest.mark.parametrize(
    "message",
    [
        RESULT,
        Exported(24, PromptForm("{{ .Prompt }}\n", "", ("</s>",))),
        PREDICTED,
        LOADED,
        ANSWER,
        CLASSES,
        Evaluated(3),
        Failure("no", "do", of_input=True),
        Progress(note="loading"),
        Progress(done=1, total=2),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    line = message_line(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert read_message(line) == message


def test_what_the_box_prints_is_read_as_the_same_messages() -> None:
    assert read_message(to_line(LOADED)) == LOADED
    assert read_message(to_line(ANSWER)) == ANSWER
    assert read_message(error_line("no checkpoint")) == Failure("no checkpoint")


@pytest.mark.parametrize("line", ["", "a warning", "[1]", "3", '"text"', "{}", '{"other": 1}', "[" * 100_000])
def test_other_lines_are_no_messages(line: str) -> None:
    assert read_message(line) is None


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"seconds": "x"}, "seconds: 'x'"),
        ({"seconds": float("nan")}, "seconds: nan"),
        ({"seconds": -1.0}, "seconds: -1.0"),
        ({"tokens": -1}, "tokens: -1"),
        ({"ended": None}, "ended: nothing"),
        ({"text": 7}, "text: 7"),
    ],
)
def test_a_damaged_answer_is_named(changed: dict[str, object], complaint: str) -> None:
    value = json.loads(to_line(ANSWER))
    value["answered"]["answers"][1] |= changed
    with pytest.raises(Impossible, match=rf"answered\.answers\[1\]\.{complaint}"):
        read_message(json.dumps(value))


@pytest.mark.parametrize(
    "path", ["device", "load_seconds", "predictions", "predictions.samples", "predictions.seconds"]
)
def test_a_result_without_one_of_its_fields_is_named(path: str) -> None:
    value = json.loads(message_line(RESULT))
    inner = value["result"]
    *outer, last = path.split(".")
    for name in outer:
        inner = inner[name]
    del inner[last]
    with pytest.raises(Impossible, match=rf"result\.{path}: nothing"):
        read_message(json.dumps(value))


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b'{"sample": {}}', b'{"smoke": {"folder": 3}}', b'{"sample": {"settings": {"samples": 0}}}'],
)
def test_a_damaged_request_is_refused(line: bytes) -> None:
    with pytest.raises(Impossible):
        read_request(line)
