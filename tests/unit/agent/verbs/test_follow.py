"""The order in which a follower looks: the end first, then the last bytes."""

import io

from remote_payload.agent.run import alive, slot, state
from remote_payload.agent.verbs import follow
from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request

RUN = "x-20260102-142030-f011"


def test_what_is_written_at_the_very_moment_of_the_end_is_not_lost(tmp_path, monkeypatch):
    run = BoxPaths(str(tmp_path)).run(RUN)
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    log = tmp_path / "runs" / RUN / "log"
    log.write_bytes(b"")
    sent = []
    ended = []

    def write_and_end(asked):
        """Between any two looks of the follower, the payload writes its last line and ends."""
        if not ended:
            log.write_bytes(b"last words")
            ended.append(ExitRecord("exit", 0, 1.0))
        return ended[0]

    monkeypatch.setattr(slot, "read", write_and_end)
    monkeypatch.setattr(alive, "is_supervised", lambda run: False)
    monkeypatch.setattr(state, "status_of", lambda run: {"phase": "finished"})
    request = Request(
        {"run_id": RUN}, BoxPaths(str(tmp_path)), lambda data: sent.append(protocol.read_frame(io.BytesIO(data).read))
    )
    answer = follow.follow(request)
    assert b"".join(frame.payload[8:] for frame in sent if frame.type == protocol.LOG) == b"last words"
    assert answer["log_offset"] == 10 and answer["status"] == {"phase": "finished"}
    assert run.log == str(log)


def test_leftovers_that_never_end_do_not_hold_a_follower_for_ever(tmp_path, monkeypatch):
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(slot, "read", lambda run: ExitRecord("exit", 0, 1.0))
    monkeypatch.setattr(alive, "is_supervised", lambda run: True)
    monkeypatch.setattr(state, "status_of", lambda run: {"phase": "finished"})
    monkeypatch.setattr(follow.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(follow.Watch, "wait", lambda self, seconds: None)
    assert follow.follow(Request({"run_id": RUN}, BoxPaths(str(tmp_path))))["status"] == {"phase": "finished"}
