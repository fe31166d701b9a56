"""What the agent answers when something goes wrong, and what it refuses to read."""

import errno
import io
import threading

import pytest

from remote_payload.agent import serve
from remote_payload.agent.serve import Server, explain, frames, without_secrets
from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import Frame, ProtocolError
from remote_payload.agent.wire.request import Request
from runner.domain import errors


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (AgentError("GpuBusy", "taken", "wait"), "GpuBusy", "taken"),
        (OSError(errno.ENOSPC, "No space", "/root/x"), "BoxNotReady", "disk of the box is full (/root/x)"),
        (OSError(errno.EDQUOT, "Quota"), "BoxNotReady", "disk of the box is full"),
        (OSError(errno.EROFS, "ro", "/root"), "BoxNotReady", "/root on the box is read-only"),
        (ZeroDivisionError("division by zero"), "GpurunError", "ZeroDivisionError: division by zero"),
        (SystemExit(3), "GpurunError", "SystemExit: 3"),
    ],
)
def test_every_exception_becomes_an_error_of_the_laptops_own_tree(error, kind, says):
    answer = explain("launch", error)
    assert answer["kind"] == kind and says in answer["message"] and "Traceback" not in answer["message"]
    assert issubclass(getattr(errors, kind), errors.GpurunError)


def test_an_error_never_carries_a_secret_of_its_request():
    args = {"secrets": {"WANDB": "canary-1", "HF_TOKEN": "hf_abcdefgh12345678"}}
    answer = explain("launch", ValueError("bad canary-1 and hf_abcdefgh12345678 and hf_otherother1"))
    assert without_secrets(answer, args)["message"].count("[redacted]") == 3
    assert without_secrets({"message": "x"}, {"secrets": "no dict"}) == {"message": "x"}


def test_every_verb_leads_to_a_function_that_is_there():
    for verb in serve.VERBS:
        assert callable(serve.find_verb(verb)), verb


@pytest.mark.parametrize("verb", ["__import__", "", None, ["launch"], "launch:launch"])
def test_a_verb_that_is_not_in_the_table_is_refused(verb):
    with pytest.raises(AgentError, match="has no verb"):
        serve.find_verb(verb)


def test_frames_that_came_with_the_handshake_are_read_first():
    one, two = (protocol.encode_json(protocol.REQUEST, n, {"verb": "x"}) for n in (1, 2))
    assert [frame.stream for frame in frames(one, io.BytesIO(two))] == [1, 2]


class Channel:
    """A server whose answers are collected."""

    def __init__(self, monkeypatch, verb):
        self.sent = []
        monkeypatch.setattr(serve, "find_verb", lambda name: verb)
        self.server = Server(BoxPaths("/tmp/x"), self)

    def send(self, data):
        self.sent.append(protocol.read_frame(io.BytesIO(data).read))


@pytest.mark.parametrize("kind", [protocol.RESULT, protocol.LOG, protocol.BEAT])
def test_a_laptop_that_sends_what_only_agents_send_is_cut_off(monkeypatch, kind):
    with pytest.raises(ProtocolError):
        Channel(monkeypatch, None).server.handle(Frame(kind, 1, b"{}"))


def test_requests_overlap_and_each_gets_its_own_answer(monkeypatch):
    gate = threading.Event()

    def verb(request: Request):
        if request.args["wait"]:
            assert gate.wait(10)
        return {"waited": request.args["wait"]}

    channel = Channel(monkeypatch, verb)
    channel.server.handle(Frame(protocol.REQUEST, 1, b'{"verb":"x","args":{"wait":true}}'))
    channel.server.handle(Frame(protocol.REQUEST, 2, b'{"verb":"x","args":{"wait":false}}'))
    while not channel.sent:
        gate.wait(0.01)
    gate.set()
    channel.server.close()
    assert [(frame.stream, frame.json()["waited"]) for frame in channel.sent] == [(2, False), (1, True)]


def test_an_upload_arrives_piece_by_piece_and_a_stream_cannot_be_opened_twice(monkeypatch):
    channel = Channel(monkeypatch, lambda request: {"got": b"".join(request.blobs()).decode()})
    channel.server.handle(Frame(protocol.REQUEST, 1, b'{"verb":"x"}'))
    with pytest.raises(ProtocolError, match="taken"):
        channel.server.handle(Frame(protocol.REQUEST, 1, b'{"verb":"x"}'))
    for blob in (b"ab", b"cd", b""):
        channel.server.handle(Frame(protocol.BLOB, 1, blob))
    channel.server.close()
    assert channel.sent[0].json() == {"got": "abcd"}
    channel.server.handle(Frame(protocol.BLOB, 1, b"late"))  # nobody wants it any more
    channel.server.handle(Frame(protocol.CANCEL, 1, b""))


def test_an_upload_that_stops_half_way_is_an_error(monkeypatch):
    channel = Channel(monkeypatch, lambda request: {"got": len(list(request.blobs()))})
    channel.server.handle(Frame(protocol.REQUEST, 1, b'{"verb":"x"}'))
    channel.server.handle(Frame(protocol.BLOB, 1, b"ab"))
    channel.server.close()
    assert (channel.sent[0].type, channel.sent[0].json()["kind"]) == (protocol.ERROR, "TransferInterrupted")


def test_arguments_that_are_no_object_are_none(monkeypatch):
    channel = Channel(monkeypatch, lambda request: {"args": request.args})
    channel.server.handle(Frame(protocol.REQUEST, 1, b'{"verb":"x","args":[1]}'))
    channel.server.close()
    assert channel.sent[0].json() == {"args": {}}
