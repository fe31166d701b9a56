"""The laptop's end of the agent's channel: requests out, frames in, silence noticed.

The agent is started when the first request is made and gets it together with its start, which costs no round trip of its own.
Requests may overlap: each is a stream with its own queue. One thread reads frames and fills the queues, and waits while one is
full: no more than ``WAITING`` frames of a stream are held, however fast the box sends. A link over which nothing comes for
``SILENCE_LIMIT`` seconds is dead, even if TCP has not noticed; every request then fails with LinkLost.
"""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.protocol import Frame
from runner.domain import errors
from runner.domain.answers.reading import Fields, Impossible, optional, text
from runner.domain.errors import AbsurdAnswer, GpurunError, HostError, LinkLost, Unanswered
from runner.domain.host import HOME
from runner.domain.terminal import clean

WAITING = 16  # frames of one stream, of 1 MiB each at most while it is a log

# The JSON object of a frame from the box. None of its fields is checked; ``Fields`` reads them.
Json = dict[str, object]


class StartedAgent(NamedTuple):
    """The folder that an agent works in, the identity of the box that lies there ("" where the disk keeps none), and whether that folder
    lies in the home folder."""

    root: str
    identity: str = ""
    at_home: bool = False


# Starts the agent with the first frames, and whether all of these may be seen by other users of the box.
StartAgent = Callable[[bytes, bool], StartedAgent]

# The errors that an agent may name, so that the box can choose neither an exit code of the laptop's own nor a retry.
ERRORS = {
    kind.__name__: kind
    for kind in (
        errors.HostError, errors.BoxNotReady, errors.HubAccessDenied,
        errors.TransferError, errors.RsyncMissing, errors.TransferInterrupted, errors.TransferFailed, errors.PushDiffers,
        errors.LaunchError, errors.NotStarted, errors.StartUnconfirmed, errors.GpuBusy, errors.EnvironmentFailed,
        errors.ArtifactError, errors.ManifestMissing, errors.ChecksumMismatch, errors.SmokeTestFailed,
        errors.RunLost,
    )
}  # fmt: skip

# Requests that other users of the box may see in its process list: they hold no secret.
PUBLIC = frozenset(("probe", "status", "follow", "stop", "manifest", "holdings"))


class Pipe(Protocol):
    """Bytes to and from the agent. ``read`` raises TimeoutError after SILENCE_LIMIT seconds without a byte."""

    def read(self, count: int) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Patience:
    """For how many seconds nothing may be heard of one request. Paused while the box waits for the laptop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since = time.monotonic()
        self._paused = False

    def begin(self) -> None:
        """Counts from now on: something was heard, or nobody was reading until now."""
        self._since = time.monotonic()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._since = time.monotonic()
        self._paused = False

    @property
    def over(self) -> bool:
        return not self._paused and time.monotonic() - self._since > self.seconds


class AgentSession:
    """One agent on the box for as long as a command needs it. Thread-safe."""

    def __init__(self, pipe: Pipe, where: str, start_agent: StartAgent) -> None:
        self._pipe = pipe
        self.where = where
        self._start_agent = start_agent
        self._starting = threading.Lock()
        self._early: bytes | None = b""  # frames to send together with the agent's start; None once it was started
        self._public = True  # whether other users of the box may see all of these
        self._started = StartedAgent("")
        self._streams: dict[int, queue.Queue[Frame | None]] = {}
        self._numbers = itertools.count(1)
        self._writing = threading.Lock()
        self._dead: GpurunError | None = None
        self._closing = False

    @property
    def root(self) -> str:
        """``$ROOT`` on the box. Raises BoxNotReady or ConnectFailed when no agent starts there."""
        self._start()
        return self._started.root

    @property
    def identity(self) -> str:
        """The identity of the box; "" before the first request, and where the box keeps none."""
        return self._started.identity

    @property
    def volume(self) -> str | None:
        """The folder that holds the root, HOME for the home folder; None before the first request."""
        started = self._started
        return (HOME if started.at_home else posixpath.dirname(started.root)) if started.root else None

    def _start(self) -> None:
        with self._starting:
            if self._dead is not None:
                raise self._dead
            if self._early is None:
                return
            with self._writing:  # nothing else is sent before the agent runs
                early, self._early = self._early, None
                try:
                    self._started = self._start_agent(early, self._public)
                except GpurunError as error:
                    self._dead = error
                    raise
            threading.Thread(target=self._read_frames, name="agent-frames", daemon=True).start()

    def stream(
        self, verb: str, args: Mapping[str, object], *, blobs: Iterable[bytes] = (), patience: Patience | None = None
    ) -> Generator[Frame, None, None]:
        """The frames of one request up to and including its RESULT. Leaving the iteration early cancels the request.

        ``blobs`` are uploaded with the request; an iterator's in a thread of their own, as they come. Raises the agent's error, LinkLost,
        and Unanswered once ``patience`` is over.
        """
        number = next(self._numbers)
        inbox: queue.Queue[Frame | None] = queue.Queue(WAITING)
        self._streams[number] = inbox
        finished = False
        try:
            if self._dead is not None:
                raise self._dead
            request = protocol.encode_json(protocol.REQUEST, number, {"verb": verb, "args": args})
            self._send(request, public=verb in PUBLIC)
            self._start()
            if isinstance(blobs, Iterator):
                threading.Thread(target=self._upload_in_background, args=(number, blobs), daemon=True).start()
            else:
                self._upload(number, blobs)
            while not finished:
                item = self._next(verb, inbox, patience)
                if item is None:
                    finished = True
                    raise self._dead or _lost(self.where)
                if item.type == protocol.ERROR:
                    finished = True
                    raise _error(verb, document(item, self.where), self.where)
                finished = item.type == protocol.RESULT
                yield item
        except KeyboardInterrupt:
            finished = True  # half a packet may have been sent: sending now could block, and hide the interrupt
            raise
        finally:
            self._streams.pop(number, None)
            if not finished and self._dead is None and not self._closing:
                with contextlib.suppress(GpurunError):  # the error that ended the request is the one to report
                    self._send(protocol.encode(protocol.CANCEL, number))

    def _next(self, verb: str, inbox: queue.Queue[Frame | None], patience: Patience | None) -> Frame | None:
        if patience is None:
            return inbox.get()
        patience.begin()
        while True:
            with contextlib.suppress(queue.Empty):
                return inbox.get(timeout=min(1.0, patience.seconds))
            if patience.over:
                raise _unanswered(verb, patience.seconds, self.where)

    def close(self) -> None:
        """Ends the agent; runs do not notice."""
        self._closing = True
        self._pipe.close()

    def _upload(self, number: int, blobs: Iterable[bytes]) -> None:
        some = False
        for blob in blobs:
            some = True
            for at in range(0, len(blob), protocol.MAX_BYTES):
                self._send(protocol.encode(protocol.BLOB, number, blob[at : at + protocol.MAX_BYTES]))
        if some:
            self._send(protocol.encode(protocol.BLOB, number))

    def _upload_in_background(self, number: int, blobs: Iterable[bytes]) -> None:
        with contextlib.suppress(GpurunError):  # the thread that reads the answers raises it
            self._upload(number, blobs)

    def _send(self, data: bytes, public: bool = True) -> None:
        try:
            with self._writing:
                if self._early is not None:
                    self._early += data
                    self._public = self._public and public
                else:
                    self._pipe.write(data)
        except (OSError, EOFError) as error:
            raise self._dead or _lost(self.where, clean(error)) from None

    def _read_frames(self) -> None:
        try:
            while (frame := protocol.read_frame(self._pipe.read)) is not None:
                inbox = self._streams.get(frame.stream)
                if inbox is not None and frame.type != protocol.BEAT:
                    self._offer(frame.stream, inbox, frame)
            failure: GpurunError = _lost(self.where)
        except TimeoutError:
            failure = _lost(self.where, f"nothing was heard for {protocol.SILENCE_LIMIT:.0f} seconds")
        except protocol.TornFrame:
            failure = _lost(self.where, "it broke in the middle of an answer")
        except protocol.ProtocolError as error:
            failure = _absurd(self.where, error)
        except (OSError, EOFError) as error:
            failure = _lost(self.where, clean(error))
        self._dead = failure
        for number, inbox in list(self._streams.items()):
            self._offer(number, inbox, None)

    def _offer(self, number: int, inbox: queue.Queue[Frame | None], item: Frame | None) -> None:
        """Puts a frame into the queue once there is room; drops it when nobody reads the stream any more."""
        while self._streams.get(number) is inbox:
            with contextlib.suppress(queue.Full):
                return inbox.put(item, timeout=0.2)


def document(frame: Frame, where: str) -> Json:
    """The JSON object of a frame. Raises AbsurdAnswer where there is none, or one too large."""
    try:
        return frame.json()
    except protocol.ProtocolError as error:
        raise _absurd(where, error) from None


def _absurd(where: str, error: Exception) -> AbsurdAnswer:
    return AbsurdAnswer(
        f"{where} sent data that no agent of gpurun sends: {clean(error)}",
        meaning="The connection was given up; a run on the box is not touched by that.",
        hint="If this repeats, do not trust this box.",
    )


def _lost(where: str, why: str = "the box closed it") -> LinkLost:
    return LinkLost(
        f"the connection to {where} was lost: {why}",
        meaning="What runs on the box goes on running.",
        hint="Try again; gpurun logs and gpurun fetch go on from where they were.",
        retryable=True,
    )


def _unanswered(verb: str, seconds: float, where: str) -> Unanswered:
    return Unanswered(
        f"{where} is there, but for {seconds:.0f} seconds nothing was heard of the request {verb!r}",
        meaning="It may still be at work on that; what runs on the box goes on running.",
        hint="Repeat the command; if this repeats, look at the box: ssh to it, then top and df.",
        retryable=True,
    )


def _error(verb: str, answer: Json, where: str) -> GpurunError:
    """The agent's error as the class that it names, if it is one of ERRORS."""
    fields = Fields(answer)
    try:
        kind, message, hint, meaning = (
            fields(name, optional(text)) or "" for name in ("kind", "message", "hint", "meaning")
        )
    except Impossible as error:
        return _absurd(where, error.inside(verb + ".error"))
    return ERRORS.get(kind, HostError)(message or "the agent failed without a message", meaning=meaning, hint=hint)
