"""One request as a verb sees it: its arguments, its upload, frames to send before the answer, and whether it was cancelled."""

import queue
import threading
from typing import Any, Callable, Dict, Iterator, Mapping

from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

# Blobs that wait for a verb that is slower than the link: 16 MiB at most, then the laptop has to wait.
WAITING_BLOBS = 16


class Request:
    """The parameter of every verb, ``def verb(request: Request) -> dict``.

    ``cancelled`` is set when the laptop cancels or its connection ends: long verbs check it, those that must not stop
    half-way (launch, stop) do not. Sending to a laptop that is gone does nothing.
    """

    def __init__(
        self, args: Dict[str, Any], paths: BoxPaths, send: Callable[[bytes], None] = lambda data: None, stream: int = 0
    ) -> None:
        self.args = args
        self.paths = paths
        self.cancelled = threading.Event()
        self._send = send
        self._stream = stream
        self._blobs: "queue.Queue[bytes]" = queue.Queue(WAITING_BLOBS)

    def fields(self, kind: str = "GpurunError") -> Fields:
        """The arguments as typed fields; one of another type is an AgentError ``kind``."""
        return Fields(self.args, kind)

    def run(self) -> RunPaths:
        """The paths of the run that the argument ``run_id`` names. Raises AgentError where that is not a run id."""
        return self.paths.run(self.fields().run_id())

    def progress(self, value: Mapping[str, Any]) -> None:
        """Sends the progress of the verb; any JSON object."""
        self._send(protocol.encode_json(protocol.PROGRESS, self._stream, value))

    def log(self, offset: int, data: bytes) -> None:
        """Sends bytes of the run's log, which are at ``offset`` in it; at most MAX_BYTES."""
        self._send(protocol.encode(protocol.LOG, self._stream, protocol.OFFSET.pack(offset) + data))

    def events(self, offset: int, data: bytes) -> None:
        """Sends bytes of the run's events file, which are at ``offset`` in it; at most MAX_BYTES."""
        self._send(protocol.encode(protocol.EVENTS, self._stream, protocol.OFFSET.pack(offset) + data))

    def blobs(self) -> Iterator[bytes]:
        """The upload that follows the request, piece by piece. Raises AgentError when it stops half-way."""
        while True:
            try:
                blob = self._blobs.get(timeout=0.2)
            except queue.Empty:
                if self.cancelled.is_set():
                    raise AgentError("TransferInterrupted", "the upload stopped half-way") from None
                continue
            if not blob:
                return
            yield blob

    def offer_blob(self, blob: bytes) -> None:
        """For the frame loop: adds a BLOB, waiting while too many are unread; dropped once the request is cancelled."""
        while not self.cancelled.is_set():
            try:
                return self._blobs.put(blob, timeout=0.2)
            except queue.Full:
                continue
