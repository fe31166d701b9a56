"""Requests and messages as lines of JSON, written and checked in this module alone.

Each is ``{NAME: {…}}``, the fields of its dataclass, which ``reader_of`` reads by their types; a prompt is ``{"prompt": …}``.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from remote_payload.recipes.answers import ANSWERED, LOADED, Answered, Loaded
from remote_payload.settings.sample import SampleOrder
from runner.domain.answers.reading import Fields, Impossible, Reader, shown, string
from runner.domain.answers.typed import reader_of
from runner.local_model.messages import (
    Evaluated,
    EvaluateRequest,
    Exported,
    ExportRequest,
    Failure,
    Message,
    PredictRequest,
    PredictResult,
    Progress,
    Request,
    SampleRequest,
    SmokeRequest,
    SmokeResult,
)

REQUESTS: dict[type[Request], str] = {
    SmokeRequest: "smoke",
    SampleRequest: "sample",
    PredictRequest: "predict",
    ExportRequest: "export",
    EvaluateRequest: "evaluate",
}
MESSAGES: dict[type[Message], str] = {
    Progress: "progress",
    Failure: "error",
    SmokeResult: "result",
    Exported: "exported",
    Evaluated: "evaluated",
    PredictResult: "predicted",
    Loaded: LOADED,
    Answered: ANSWERED,
}


def request_line(request: Request) -> bytes:
    """The request as the process reads it."""
    return _line({REQUESTS[type(request)]: asdict(request)})


def prompt_line(prompt: str) -> bytes:
    """A prompt as the process, or ``sample`` on the box, reads it."""
    return _line({"prompt": prompt})


def order_line(order: SampleOrder) -> bytes:
    """The order as ``sample`` on the box reads it."""
    return _line(asdict(order))


def message_line(message: Message) -> bytes:
    """A message as gpurun reads it."""
    return _line({MESSAGES[type(message)]: asdict(message)})


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, default=str).encode() + b"\n"


def read_request(line: bytes) -> Request:
    """The request in a line. Raises Impossible naming a field that is not as it must be."""
    value = _parse(line)
    for kind, name in REQUESTS.items():
        if isinstance(value, dict) and name in value:
            read: Reader[Request] = reader_of(kind)
            return Fields(value)(name, read)
    raise Impossible(f"{shown(value)} is no request")


def read_predicted(document: object) -> PredictResult:
    """What a prediction says of itself. Raises Impossible naming a wrong field."""
    return reader_of(PredictResult)(document)


def read_prompt(line: bytes) -> str:
    """The prompt in a line. Raises Impossible."""
    return Fields(_parse(line))("prompt", string)


def read_message(line: bytes | str) -> Message | None:
    """The message in a line; None for a line that is none, such as a library's warning. Raises Impossible naming a wrong field."""
    value = _parse(line)
    for kind, name in MESSAGES.items():
        if isinstance(value, dict) and name in value:
            read: Reader[Message] = reader_of(kind)
            return Fields(value)(name, read)
    return None


def _parse(line: bytes | str) -> object:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value
