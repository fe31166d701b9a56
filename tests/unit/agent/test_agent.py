"""runner/transport/agent.py: the one door for what a box says."""

import ast
import inspect
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.serve import VERBS
from remote_payload.agent.wire import launch_request, protocol
from runner.domain import requests
from runner.domain.answers.status import Status
from runner.domain.answers.verbs import Followed, Moved, Piece
from runner.domain.errors import AbsurdAnswer, GpurunError, HostError, LaunchError, RunLost, Unanswered
from runner.transport import agent as door
from runner.transport.agent import PATIENCE, Agent
from tests.support.replay import Said, replaying

RUN = "x-20260102-142030-7f3a"
STATUS: dict[str, Any] = {
    "run_id": RUN, "phase": "running", "outcome": None, "cause": None, "exit": None, "orphaned": False, "stalled": False,
    "pid": 7, "gpus": [], "started_at": 1.0, "ended_at": None, "progress": {}, "log_size": 0, "generation": "1-2",
    "evidence": None, "advice": None,
}  # fmt: skip


def result(**value: Any) -> Said:
    return protocol.RESULT, json.dumps(value).encode()


def notice(**value: Any) -> Said:
    return protocol.PROGRESS, json.dumps(value).encode()


def saying(*frames: Said) -> Agent:
    return replaying(lambda verb, args: frames)


def test_every_verb_of_the_agent_is_asked_for_here_and_nowhere_else() -> None:
    assert set(PATIENCE) == set(VERBS)
    source = inspect.getsource(door)
    assert all(f'"{verb}"' in source for verb in VERBS)
    workflow = Path(door.__file__).parents[1] / "workflow"
    calls = [
        node.func.attr
        for file in workflow.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    assert "call" not in calls and "stream" not in calls


def test_the_laptop_writes_the_fields_that_the_box_reads() -> None:
    """A field that only one end knows would be ignored by the other without an error."""
    pairs = [
        (requests.LaunchRequest, (*launch_request.LaunchRequest._fields,)),
        (requests.DataRequest, launch_request.DataLink._fields),
        (requests.ResumeRequest, launch_request.Resume._fields),
        (requests.BoxesRequest, launch_request.Boxes._fields),
    ]
    for written, read in pairs:
        never_sent, of_the_verb = {"log_limit", "continues"}, {"watch"}
        assert set(written.__annotations__) - of_the_verb == set(read) - never_sent


def test_an_answer_that_is_right_is_typed() -> None:
    assert saying(result(runs=[STATUS])).status(RUN) == Status(RUN, "running", pid=7, started_at=1.0, generation="1-2")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pid": "7"}, "status.runs[0].pid"), ({"gpus": {}}, "status.runs[0].gpus"), ({"orphaned": None}, "status.runs[0].orphaned"),
        ({"phase": "finished"}, "status.runs[0].outcome"), ({"started_at": 10**400}, "status.runs[0].started_at"),
        ({"run_id": "../../x"}, "status.runs[0].run_id"), ({"run_id": "y-20260102-142030-7f3a"}, "status.runs"),
        ({"exit": {"kind": "exit"}}, "status.runs[0].exit.number"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_named_and_is_the_hosts_fault(change: dict[str, Any], named: str) -> None:
    with pytest.raises(AbsurdAnswer) as refused:
        saying(result(runs=[{**STATUS, **change}])).status(RUN)
    assert f"for {named}: " in refused.value.message and refused.value.exit_code == 3


@pytest.mark.parametrize(
    "frame",
    [
        (protocol.RESULT, b"[]"), (protocol.RESULT, b"{"), (protocol.PROGRESS, b"7"), (protocol.LOG, b"\0" * 9), (protocol.EVENTS, b""),
        (protocol.REQUEST, b"{}"), (protocol.BLOB, b""), (protocol.CANCEL, b""), (protocol.ERROR, b"[]"),
        (protocol.ERROR, b'{"kind": 7, "message": "x"}'), (protocol.ERROR, b'{"message": ["x"]}'),
    ],
)  # fmt: skip
def test_frames_that_no_agent_sends_are_the_hosts_fault(frame: Said) -> None:
    with pytest.raises(AbsurdAnswer):
        saying(frame, result(left=[])).wipe(RUN)


@pytest.mark.parametrize("payload", [b"", b"1234567", struct.pack(">Q", 1 << 63) + b"x"])
@pytest.mark.parametrize("kind", [protocol.LOG, protocol.EVENTS])
def test_a_piece_of_the_log_without_a_possible_offset_is_refused(kind: bytes, payload: bytes) -> None:
    with pytest.raises(AbsurdAnswer, match=r"follow\.(log|events)"):
        list(follow(saying((kind, payload))))


def follow(agent: Agent) -> Any:
    return agent.follow(RUN, log_offset=0, generation=None, events_offset=0, until_end=True)


def test_a_stream_is_pieces_notices_and_an_end() -> None:
    place = {"generation": "1-2", "offset": 0, "size": 5}
    frames = [notice(log=place), notice(log={**place, "change": "gap", "bytes": 3}), notice(status=STATUS)]
    said = list(follow(saying(*frames, (protocol.LOG, struct.pack(">Q", 3) + b"hi"), result(status=STATUS))))
    status = Status.parse(STATUS)
    assert said == [
        Moved("log", None, "1-2", 0, 5), Moved("log", "gap", "1-2", 0, 3), status, Piece("log", 3, b"hi"), Followed(status),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("UserError", HostError), ("UnknownRun", HostError), ("JobFileError", HostError), ("StateError", HostError),
        ("GpurunError", HostError), ("LinkLost", HostError), ("HostKeyChanged", HostError), ("RunCancelled", HostError),
        ("SystemExit", HostError), ("__class__", HostError), ("RunLost", RunLost), ("LaunchError", LaunchError),
    ],
)  # fmt: skip
def test_a_box_can_name_only_the_errors_of_a_box(kind: str, raised: type[GpurunError]) -> None:
    body = json.dumps({"kind": kind, "message": "why\x1b[2J", "hint": "", "meaning": ""}).encode()
    with pytest.raises(raised) as caught:
        saying((protocol.ERROR, body)).wipe(RUN)
    assert type(caught.value) is raised and caught.value.message == "why" and not caught.value.retryable


def test_a_box_that_beats_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PATIENCE, "wipe", 0.2)
    with pytest.raises(Unanswered, match="nothing was heard of the request 'wipe'") as caught:
        saying((protocol.BEAT, b"")).wipe(RUN)
    assert caught.value.exit_code == 3


def test_the_time_that_a_person_takes_to_ask_is_no_silence_of_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setitem(PATIENCE, "sample", 0.3)
    typed = threading.Event()

    def asked() -> Any:
        typed.wait(1.5)  # far beyond the patience, as somebody who thinks
        yield b"{}"

    lines = saying(notice(line='{"loaded": {}}')).sample(RUN, "m", [], asked())
    assert next(lines) == '{"loaded": {}}'
    with pytest.raises(Unanswered):  # the box's turn again: that is its silence
        next(lines)
    assert not typed.is_set()
