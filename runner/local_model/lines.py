"""Requests and messages as lines of JSON, written and checked in this module alone.

A request is ``{"smoke": {…}}``, or the same with ``sample``, ``predict``, ``export`` or ``evaluate``, a prompt ``{"prompt": …}``. A message
is ``{"note": …}`` or ``{"done", "total"}`` (progress), ``{"result": {…}}``, ``{"predicted": {…}}``, ``{"exported": {…}}``,
``{"evaluated": {…}}``, ``{"error", "hint", "of_input"}``, or one of the two that ``remote_payload/recipes/answers.py`` defines.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from remote_payload.recipes.answers import Answer, Loaded
from remote_payload.settings.predict import PredictSettings
from remote_payload.settings.reading import SettingError, read_settings
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    Reader,
    boolean,
    finite_number,
    harmless,
    list_of,
    mapping_of,
    optional,
    string,
    text,
    time_in_seconds,
    whole,
)
from runner.local_model.messages import (
    Evaluated,
    EvaluateRequest,
    Exported,
    ExportRequest,
    Failure,
    Labelled,
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
    Sampling,
    SmokeRequest,
    SmokeResult,
)

NAMES: dict[type[Request], str] = {
    SmokeRequest: "smoke",
    SampleRequest: "sample",
    PredictRequest: "predict",
    ExportRequest: "export",
    EvaluateRequest: "evaluate",
}


def request_line(request: Request) -> bytes:
    """The request as the process reads it."""
    return _line({NAMES[type(request)]: asdict(request)})


def prompt_line(prompt: str) -> bytes:
    """A prompt as the process, or ``sample`` on the box, reads it."""
    return _line({"prompt": prompt})


def message_line(message: Message) -> bytes:
    """A message as gpurun reads it."""
    value = asdict(message)
    match message:
        case SmokeResult():
            return _line({"result": value})
        case Exported():
            return _line({"exported": value})
        case PredictResult():
            return _line({"predicted": value})
        case Loaded():
            return _line({"loaded": value})
        case Evaluated():
            return _line({"evaluated": value})
        case Failure():
            return _line({"error": message.message, "hint": message.hint, "of_input": message.of_input})
    return _line(value)


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, default=str).encode() + b"\n"


def read_request(line: bytes) -> Request:
    """The request in a line. Raises Impossible naming a field that is not as it must be."""
    fields = Fields(_parse(line))
    for name, read in OTHERS.items():
        if request := fields(name, optional(read)):
            return request
    return fields("smoke", _smoke_request)


def read_predicted(document: object) -> PredictResult:
    """What a prediction says of itself. Raises Impossible naming a wrong field."""
    return _predict_result(document)


def read_prompt(line: bytes) -> str:
    """The prompt in a line. Raises Impossible."""
    return Fields(_parse(line))("prompt", string)


def read_message(line: bytes | str) -> Message | None:
    """The message in a line; None for a line that is none, such as a library's warning. Raises Impossible naming a wrong field."""
    value = _parse(line)
    if not isinstance(value, dict):
        return None
    fields = Fields(value)
    if "error" in value:
        hint, of_input = fields("hint", optional(text)), fields("of_input", optional(boolean))
        return Failure(fields("error", text), hint or "", of_input or False)
    if "result" in value:
        return fields("result", _smoke_result)
    if "exported" in value:
        return fields("exported", _exported)
    if "evaluated" in value:
        return fields("evaluated", lambda each: Evaluated(Fields(each)("columns", whole)))
    if "predicted" in value:
        return fields("predicted", _predict_result)
    if "loaded" in value:
        return fields("loaded", _loaded)
    if "text" in value:
        return _answer(fields)
    if "note" in value or "done" in value:
        return _progress(fields)
    return None


def _parse(line: bytes | str) -> object:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value


def _smoke_request(value: object) -> SmokeRequest:
    fields = Fields(value)
    return SmokeRequest(
        folder=fields("folder", _path),
        base=fields("base", optional(_path)),
        described=fields("described", boolean),
        kind=fields("kind", string),
        adapter=fields("adapter", boolean),
        device=fields("device", string),
        dtype=fields("dtype", string),
        labels=fields("labels", list_of(string)),
        max_length=fields("max_length", whole),
        inputs=fields("inputs", optional(_path)),
        expected=fields("expected", optional(_path)),
    )


def _sample_request(value: object) -> SampleRequest:
    fields = Fields(value)
    return SampleRequest(
        folder=fields("folder", _path),
        base=fields("base", optional(_path)),
        ask_base=fields("ask_base", boolean),
        device=fields("device", string),
        dtype=fields("dtype", string),
        sampling=fields("sampling", _sampling),
    )


def _export_request(value: object) -> ExportRequest:
    fields = Fields(value)
    return ExportRequest(
        source=fields("source", _smoke_request),
        into=fields("into", _path),
        dtype=fields("dtype", string),
        questions=fields("questions", optional(_path)),
        form=fields("form", boolean),
        title=fields("title", optional(string)),
    )


def _evaluate_request(value: object) -> EvaluateRequest:
    fields = Fields(value)
    return EvaluateRequest(fields("settings", mapping_of(lambda each: each)), fields("outputs", _path))


def _predict_request(value: object) -> PredictRequest:
    fields = Fields(value)
    return PredictRequest(
        name=fields("name", string),
        folder=fields("folder", _path),
        base=fields("base", optional(_path)),
        kind=fields("kind", string),
        device=fields("device", string),
        dtype=fields("dtype", string),
        settings=fields("settings", _predict_settings),
        check=fields("check", boolean),
    )


def _predict_settings(value: object) -> PredictSettings:
    try:
        settings: PredictSettings = read_settings(PredictSettings, value)
    except SettingError as error:
        raise Impossible(str(error)) from None
    return settings


def _predict_result(value: object) -> PredictResult:
    fields = Fields(value)
    return PredictResult(
        device=fields("device", text),
        rows=fields("rows", whole),
        bad=fields("bad", whole),
        cut=fields("cut", whole),
        counts=fields("counts", mapping_of(whole)),
        predicted=fields("predicted", whole),
        seconds=fields("seconds", time_in_seconds),
        peak_memory=fields("peak_memory", whole),
        problems=fields("problems", list_of(string)),
    )


OTHERS: dict[str, Reader[Request]] = {
    "sample": _sample_request,
    "predict": _predict_request,
    "export": _export_request,
    "evaluate": _evaluate_request,
}


def _sampling(value: object) -> Sampling:
    fields = Fields(value)
    return Sampling(
        max_new_tokens=fields("max_new_tokens", whole),
        temperature=fields("temperature", finite_number),
        top_p=fields("top_p", finite_number),
        repetition_penalty=fields("repetition_penalty", finite_number),
        seed=fields("seed", _integer),
    )


def _path(value: object) -> Path:
    return Path(string(value))


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise Impossible("not a whole number")
    return value


def _progress(fields: Fields) -> Progress:
    return Progress(
        fields("done", optional(finite_number)),
        fields("total", optional(finite_number)),
        fields("note", optional(text)),
    )


def _loaded(value: object) -> Loaded:
    fields = Fields(value)
    metrics = fields("metrics", optional(mapping_of(harmless))) or {}  # a metric that diverged is not a number
    return Loaded(
        model=fields("model", optional(text)) or "the model",
        base=fields("base", optional(boolean)) or False,
        device=fields("device", text),
        step=fields("step", optional(whole)),
        metrics={name: float(value) for name, value in metrics.items() if isinstance(value, int | float)},
    )


def _exported(value: object) -> Exported:
    fields = Fields(value)
    return Exported(fields("merged", whole), fields("form", optional(_form)))


def _form(value: object) -> PromptForm:
    fields = Fields(value)
    return PromptForm(fields("template", string), fields("system", string), fields("stop", list_of(string)))


def _answer(fields: Fields) -> Answer:
    return Answer(
        prompt=fields("prompt", string),
        text=fields("text", string),
        tokens=fields("tokens", whole),
        seconds=fields("seconds", time_in_seconds),
        ended=fields("ended", boolean),
    )


def _smoke_result(value: object) -> SmokeResult:
    fields = Fields(value)
    return SmokeResult(
        device=fields("device", text),
        device_name=fields("device_name", text),
        torch=fields("torch", text),
        load_seconds=fields("load_seconds", time_in_seconds),
        peak_memory=fields("peak_memory", whole),
        predictions=fields("predictions", _predictions),
    )


def _predictions(value: object) -> Predictions:
    fields = Fields(value)
    return Predictions(
        samples=fields("samples", whole),
        seconds=fields("seconds", time_in_seconds),
        counts=fields("counts", optional(list_of(whole))),
        tokens=fields("tokens", optional(whole)),
        texts=fields("texts", list_of(string)),
        comparison=fields("comparison", optional(_measured)),
        labelled=fields("labelled", list_of(_labelled)),
    )


def _labelled(value: object) -> Labelled:
    fields = Fields(value)
    return Labelled(fields("label", string), fields("probability", finite_number))


def _measured(value: object) -> Measured:
    fields = Fields(value)
    rows = fields("rows", list_of(_row))
    return Measured(rows, fields("scale", finite_number), fields("agree", whole), fields("answers", whole))


def _row(value: object) -> RowDifference:
    fields = Fields(value)
    return RowDifference(
        difference=fields("difference", finite_number),
        gap=fields("gap", optional(finite_number)),
        here=fields("here", string),
        there=fields("there", string),
    )
