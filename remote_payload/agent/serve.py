"""The agent's end of the channel: frames in, one thread a request, answers and beats out.

A request loads only the module of its verb. When the channel ends, every request that is under way is cancelled,
and the agent waits for those that must not stop half-way.
"""

import errno
import importlib
import io
import os
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Mapping, Tuple, cast

from remote_payload.agent.identity import identity
from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import Frame, ProtocolError
from remote_payload.agent.wire.redact import redact
from remote_payload.agent.wire.request import Request

# Each is the function ``def NAME(request: Request) -> dict`` of the module ``verbs/NAME.py``; those about the box rather than its runs are
# in ``verbs/box/``.
ABOUT_THE_BOX = ("probe", "reach", "install_payload", "install_tools", "provision", "stale", "use_gpu")
VERBS = (
    *ABOUT_THE_BOX,
    "seal",
    "share",
    "compare",
    "patch",
    "launch",
    "status",
    "follow",
    "stop",
    "recover",
    "manifest",
    "wipe",
    "holdings",
    "clean",
    "checkpoints",
    "results",
    "sample",
)
LINGER = 300.0  # seconds that a launch or a stop may go on after the connection has ended


class Writer:
    """Writes to the channel, for all requests. Once the laptop is gone, it drops what it is given."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._gone = False
        self.written_at = time.monotonic()

    def send(self, data: bytes) -> None:
        """Writes one frame as a whole; waits while the laptop does not read."""
        with self._lock:
            view = memoryview(data)
            while view and not self._gone:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except OSError:  # EPIPE: runs, and launches that are under way, go on
                    self._gone = True
            self.written_at = time.monotonic()

    def beat_forever(self) -> None:
        """A BEAT after every ``BEAT_EVERY`` seconds of silence."""
        while not self._gone:
            silence = time.monotonic() - self.written_at
            if silence >= protocol.BEAT_EVERY:
                self.send(protocol.encode(protocol.BEAT, 0))
            else:
                time.sleep(protocol.BEAT_EVERY - silence)


class Server:
    """Requests under way on one channel."""

    def __init__(self, paths: BoxPaths, writer: Writer) -> None:
        self._paths = paths
        self._writer = writer
        self._requests: Dict[int, Request] = {}
        self._threads: List[threading.Thread] = []

    def handle(self, frame: Frame) -> None:
        """Starts a request, gives it a blob, or cancels it. Raises ProtocolError for a frame that no laptop sends."""
        if frame.type == protocol.REQUEST:
            self._open(frame)
        elif frame.type == protocol.BLOB and frame.stream in self._requests:
            self._requests[frame.stream].offer_blob(frame.payload)
        elif frame.type == protocol.CANCEL and frame.stream in self._requests:
            self._requests[frame.stream].cancelled.set()
        elif frame.type not in (protocol.BLOB, protocol.CANCEL):  # those two may come after the answer left
            raise ProtocolError("a laptop does not send frames of type %r" % frame.type)

    def _open(self, frame: Frame) -> None:
        if frame.stream in self._requests or frame.stream == 0:
            raise ProtocolError("stream %d is taken" % frame.stream)
        asked = frame.json()
        args = asked.get("args", {})
        request = Request(args if isinstance(args, dict) else {}, self._paths, self._writer.send, frame.stream)
        self._requests[frame.stream] = request
        thread = threading.Thread(target=self._answer, args=(frame.stream, asked.get("verb"), request), daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _answer(self, stream: int, verb: Any, request: Request) -> None:
        try:
            answer = protocol.encode_json(protocol.RESULT, stream, find_verb(verb)(request))
        except BaseException as error:
            answer = protocol.encode_json(protocol.ERROR, stream, without_secrets(explain(verb, error), request.args))
        request.cancelled.set()  # blobs that still arrive are dropped
        self._requests.pop(stream, None)
        self._writer.send(answer)

    def close(self) -> None:
        """Cancels every request, and waits for them to end."""
        for request in list(self._requests.values()):
            request.cancelled.set()
        deadline = time.monotonic() + LINGER
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def find_verb(verb: Any) -> Callable[[Request], Mapping[str, Any]]:
    """The function behind a verb. Raises AgentError for one that this version does not know."""
    if not isinstance(verb, str) or verb not in VERBS:
        raise AgentError("GpurunError", "the agent on the box has no verb %r" % (verb,))
    package = "remote_payload.agent.verbs." + ("box." if verb in ABOUT_THE_BOX else "")
    found = getattr(importlib.import_module(package + verb), verb)
    return cast(Callable[[Request], Mapping[str, Any]], found)


def explain(verb: Any, error: BaseException) -> Dict[str, str]:
    """Any exception as the answer the laptop raises; never a traceback."""
    if isinstance(error, AgentError):
        return error.answer()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = "the disk of the box is full (%s)" % (error.filename or verb)
        return AgentError(
            "BoxNotReady", message, "Free some space there: gpurun clean shows what it may delete."
        ).answer()
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        message = "%s on the box is read-only" % (error.filename or "the disk")
        return AgentError("BoxNotReady", message, "Name another folder: gpurun hosts set HOST --volume DIR.").answer()
    frames = traceback.extract_tb(error.__traceback__)
    where = "%s:%s" % (os.path.basename(frames[-1].filename), frames[-1].lineno) if frames else "?"
    what = "%s: %s" % (type(error).__name__, error)
    return AgentError("GpurunError", "%s failed on the box: %s (%s)" % (verb, what, where)).answer()


def without_secrets(answer: Dict[str, str], args: Dict[str, Any]) -> Dict[str, str]:
    """An error without the secrets that came with the request."""
    secrets = args.get("secrets")
    values = [value for value in secrets.values() if isinstance(value, str)] if isinstance(secrets, dict) else []
    return {name: redact(text, values) for name, text in answer.items()}


def frames(early: bytes, channel: BinaryIO) -> Iterator[Frame]:
    """The laptop's frames: first those that came with the handshake, then those of the channel, to its end."""
    for read in (io.BytesIO(early).read, channel.read):
        while True:
            frame = protocol.read_frame(read)
            if frame is None:
                break
            yield frame


def take_channel() -> Tuple[BinaryIO, int]:
    """The channel's two ends, moved away from 0 and 1: the output of a child or of a ``print`` cannot get into the frames."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def serve(nonce: str, root: str, early: bytes = b"") -> int:
    """Answers requests until the channel ends; ``early`` are bytes of frames that were already read. Gives the exit status."""
    paths = BoxPaths(root)
    incoming, outgoing = take_channel()
    writer = Writer(outgoing)
    home = " home" if os.path.dirname(root) == os.path.normpath(os.path.expanduser("~")) else ""
    writer.send(("%s ready %d %s %s%s\n" % (nonce, protocol.VERSION, root, identity(paths), home)).encode("ascii"))
    threading.Thread(target=writer.beat_forever, daemon=True).start()
    threading.Thread(target=_sweep, args=(paths,), daemon=True).start()
    server = Server(paths, writer)
    try:
        for frame in frames(early, incoming):
            server.handle(frame)
        status = 0
    except (ProtocolError, OSError) as error:
        print("gpurun agent: %s" % error, file=sys.stderr)
        status = 3
    server.close()
    return status


def _sweep(paths: BoxPaths) -> None:
    from remote_payload.agent.run import secrets

    secrets.sweep(paths)
