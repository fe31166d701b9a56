"""Verb ``follow``: a run's log and events as they are written, from the laptop's offsets on, until the run is over."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Optional, Tuple

from remote_payload.agent.box.watch import Watch
from remote_payload.agent.run import alive, slot, state
from remote_payload.agent.run.tail import Tail
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Followed

LOOK_EVERY = 2.0  # seconds between looks at the processes of a run without output: the end of an orphan changes no file
STATUS_EVERY = (
    60.0  # seconds after which the status is sent again, so that a run without output does not look like a dead box
)
CANCEL_WITHIN = 0.5
SETTLE = 5.0  # seconds after the payload's end in which its remaining processes may still write
GATHER = 0.02  # seconds of output in one frame, when there is much of it


def follow(request: Request) -> Followed:
    """LOG and EVENTS frames until the run is over (``until_end``, else up to now): ``{status, generation, log_offset, events_offset}``.

    PROGRESS is ``{log: …}`` and ``{events: …}`` as ``Tail`` reports them, and ``{status}`` at the start, whenever phase,
    orphaned or stalled change, and every minute.
    Raises AgentError RunLost for a run that does not exist.
    """
    run = request.run()
    follower = Follower(request, run)
    try:
        follower.follow()
    finally:
        follower.close()
    return {
        "status": state.status_of(run),
        "generation": follower.log.generation,
        "log_offset": follower.log.offset,
        "events_offset": follower.events.offset,
    }


class Follower:
    """One run followed by one laptop."""

    def __init__(self, request: Request, run: RunPaths) -> None:
        self._request = request
        self._run = run
        asked = request.fields()
        self._until_end = asked.flag("until_end", default=True)
        self.log = Tail(
            run.log,
            _offset(asked.fields("log")),
            asked.fields("log").text("generation"),
            request.log,
            lambda change: request.progress({"log": change}),
            _not_negative(asked, "tail"),
            _not_negative(asked, "last_bytes"),
        )
        self.events = Tail(
            run.events,
            _offset(asked.fields("events")),
            "",
            request.events,
            lambda change: request.progress({"events": change}),
        )
        self._watch = Watch(run.folder)
        self._looker: Optional[threading.Thread] = None
        self._finished = False
        self._failed: Optional[BaseException] = None
        self._closed = threading.Event()
        self._shown: Optional[Tuple[Any, ...]] = None
        self._sent_at = time.monotonic()
        self._ended_at: Optional[float] = None

    def follow(self) -> None:
        """Until the run is over, or the request is cancelled."""
        while not self._request.cancelled.is_set():
            # Checked before the last bytes are read, so that none written before the end is missed.
            over = not self._until_end or self._is_over()
            sent = self.log.pump() | self.events.pump()
            if over and not sent:
                return
            if sent:
                time.sleep(GATHER)
            else:
                self._watch.wait(CANCEL_WITHIN)

    def close(self) -> None:
        """Closes files and watches."""
        self._closed.set()
        self.log.close()
        self.events.close()
        self._watch.close()

    def _is_over(self) -> bool:
        if slot.read(self._run) is not None:
            if self._ended_at is None:
                self._ended_at = time.monotonic()
            return not alive.is_supervised(self._run) or time.monotonic() - self._ended_at > SETTLE
        if self._looker is None:
            self._finished = self._look() == "finished"
            self._looker = threading.Thread(target=self._look_on, daemon=True)
            self._looker.start()
        if self._failed is not None:
            raise self._failed
        return self._finished

    def _look_on(self) -> None:
        """In a thread of its own: a look reads the environment of every process, and no line should wait for that."""
        try:
            while not self._finished and not self._closed.wait(LOOK_EVERY):
                self._finished = self._look() == "finished"
        except BaseException as error:
            self._failed = error

    def _look(self) -> str:
        status = state.status_of(self._run)
        if status.get("cause") == "folder_deleted" and self._shown is None:
            raise AgentError(
                "RunLost", "the box knows no run %s" % self._run.run_id, "gpurun list shows the runs it knows."
            )
        shown = (status["phase"], status["orphaned"], status["stalled"], status.get("evidence"))
        late = time.monotonic() - self._sent_at > STATUS_EVERY
        if (shown != self._shown or late) and not self._closed.is_set():
            self._shown, self._sent_at = shown, time.monotonic()
            self._request.progress({"status": status})
        return str(status["phase"])


def _offset(asked: Fields) -> int:
    offset = asked.whole("offset")
    if offset < 0:
        raise AgentError("GpurunError", "%d is not an offset" % offset)
    return offset


def _not_negative(asked: Fields, name: str) -> Optional[int]:
    """How many of the last lines, or bytes, of the log are wanted; None for all."""
    count = asked.optional_whole(name)
    return count if count is not None and count >= 0 else None
