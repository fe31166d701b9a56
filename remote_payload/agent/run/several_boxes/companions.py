"""The supervisors of one run on several boxes: each hears of the others, so that all of them end when one is stopped, fails or is lost.

The supervisor of rank 0 listens, the others connect to it. Each sends a line of JSON at least every BEAT_EVERY seconds:

    {"rank": 1, "word": "…"}                    who it is; the first line of a connection, from both sides
    {"rank": 1}                                 it lives
    {"rank": 1, "ending": "cancelled"}          its payload is being ended: stop, a limit
    {"rank": 1, "ended": "failed", "cause": "cuda_oom", "evidence": "…"}     its payload is over; or "lost", told by rank 0

Rank 0 passes on what the others say about themselves. Who is not heard of for LOST_AFTER seconds is lost, whatever the reason is: a box
that is gone, a cut network, a supervisor that was killed. NCCL and gloo themselves would wait up to half an hour for such a box.
"""

import hmac
import json
import selectors
import socket
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from remote_payload.agent.wire.fields import Fields, is_text, is_whole
from remote_payload.agent.wire.launch_request import Boxes

BEAT_EVERY = 2.0
LOST_AFTER = 30.0
COME_WITHIN = 120.0  # seconds to the first line of each: the boxes are asked to start at about the same time
LINGER = 20.0
LONGEST_LINE = 8192
LOOK_EVERY = 0.3
ENDING = ("cancelled", "timeout", "budget")  # why a payload is ended, as the exit slot says it
SUCCEEDED, FAILED, LOST = "succeeded", "failed", "lost"


class News(NamedTuple):
    """Why this box's payload has to end too: ``kind`` is one of ENDING, FAILED or LOST."""

    rank: int
    kind: str
    cause: Optional[str] = None
    evidence: Optional[str] = None

    def __str__(self) -> str:
        if self.kind == LOST:
            return "the box of node rank %d is not heard of any more" % self.rank
        return "on the box of node rank %d: %s" % (self.rank, self.evidence or self.cause or self.kind)


class _Line:
    """A connection to another supervisor, whose rank is known once it has told the word."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.rank: Optional[int] = None
        self._unread = b""

    def read(self) -> List[Dict[str, Any]]:
        """The complete lines that have come. Raises OSError at the end of the connection, and for what no supervisor sends."""
        try:
            piece = self.connection.recv(65536)
        except BlockingIOError:
            return []
        if not piece:
            raise OSError("it was closed")
        *lines, self._unread = (self._unread + piece).split(b"\n")
        if len(self._unread) > LONGEST_LINE:
            raise OSError("a line without an end")
        try:
            found = [json.loads(line.decode("utf-8")) for line in lines]
        except (ValueError, RecursionError):
            raise OSError("no JSON") from None
        if not all(isinstance(each, dict) and is_whole(each.get("rank")) for each in found):
            raise OSError("no message")
        return found

    def send(self, message: Dict[str, Any]) -> None:
        """Raises OSError where the other side does not read."""
        data = json.dumps(message).encode("ascii") + b"\n"
        if self.connection.send(data) != len(data):
            raise OSError("it does not read")


class Companions:
    """What this supervisor knows of the others. At rank 0 it listens as soon as it is made."""

    def __init__(self, boxes: Boxes, clock: Callable[[], float] = time.monotonic) -> None:
        self._boxes, self._clock = boxes, clock
        self._selector = selectors.DefaultSelector()
        self._lines: List[_Line] = []
        self._door: Optional[socket.socket] = None
        if boxes.rank == 0:
            self._door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._door.bind(("", boxes.supervisors))
            self._door.listen(128)
            self._selector.register(self._door, selectors.EVENT_READ)
        ranks = range(1, boxes.size) if boxes.rank == 0 else (0,)
        self._deadlines = {rank: clock() + COME_WITHIN for rank in ranks}  # of those that have to be heard of
        self._looked_at = self._beat_at = clock()
        self._guard = threading.Lock()
        self._news: List[News] = []
        self._to_tell: List[Dict[str, Any]] = []
        self._told: List[Dict[str, Any]] = []  # again to everybody who connects later
        self._closing = threading.Event()
        self._awaited = set(ranks) if boxes.rank == 0 else set()  # who has never come
        self._silent: List[int] = []  # whose connection has ended without a word about it
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """From now on the others hear of this box. Only once the payload is forked: a fork has to come before any thread."""
        self._thread.start()

    def news(self) -> Optional[News]:
        """Why this box's payload has to end, None while there is no reason. What another box said of itself comes before a loss."""
        with self._guard:
            return min(self._news, key=lambda news: news.kind == LOST, default=None)

    def await_news(self, seconds: float) -> Optional[News]:
        """The same where this box's payload has failed, after up to so many seconds for it to come: boxes fail together, and only one
        of them knows why. A box whose connection has ended without a word counts as lost then."""
        deadline = self._clock() + seconds
        while self.news() is None and self._clock() < deadline and self._thread.is_alive():
            time.sleep(LOOK_EVERY / 3)
        with self._guard:
            self._news += [News(rank, LOST) for rank in self._silent if not self._news]
        return self.news()

    def tell_ending(self, kind: str) -> None:
        """Tells the others that this box's payload is being ended, and why (one of ENDING)."""
        self._tell(ending=kind)

    def tell_ended(self, succeeded: bool, cause: Optional[str], evidence: Optional[str]) -> None:
        """Tells the others how this box's payload has ended."""
        short = evidence[:500] if evidence else None
        self._tell(ended=SUCCEEDED if succeeded else FAILED, cause=cause, evidence=short)

    def close(self) -> None:
        """Sends what is to be told, and ends every connection. Rank 0 waits a while for those that have not come yet: they start a little
        later, and would look for it in vain."""
        deadline = self._clock() + LINGER
        while self._awaited and self._clock() < deadline and self._thread.is_alive():
            time.sleep(LOOK_EVERY)
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._send_all()
        for line in self._lines:
            line.connection.close()
        if self._door is not None:
            self._door.close()
        self._selector.close()

    def _tell(self, **message: Any) -> None:
        with self._guard:
            self._to_tell.append(dict(message, rank=self._boxes.rank))

    # The thread

    def _work(self) -> None:
        while not self._closing.is_set():
            self.look(LOOK_EVERY)

    def look(self, wait: float) -> None:
        """Hears what has come, after up to so many seconds, and sends what is to be told. Nothing else uses the connections."""
        now = self._clock()
        if now - self._looked_at > LOST_AFTER / 3:  # this process was stopped meanwhile: it could not hear anybody
            self._deadlines = {rank: at + now - self._looked_at for rank, at in self._deadlines.items()}
        self._looked_at = now
        self._connect()
        for key, _ in self._selector.select(wait):
            self._hear(key)
        self._send_all()
        if now >= self._beat_at:
            self._send({"rank": self._boxes.rank})
            self._beat_at = now + BEAT_EVERY
        for rank, deadline in list(self._deadlines.items()):
            if self._clock() > deadline:
                self._learn(News(rank, LOST))

    def _connect(self) -> None:
        """To rank 0, from the others; again with each look while there is no connection."""
        if self._boxes.rank == 0 or self._lines or 0 not in self._deadlines:
            return
        try:
            connection = socket.create_connection((self._boxes.address, self._boxes.supervisors), timeout=BEAT_EVERY)
        except OSError:
            return
        self._greet(self._add(connection))

    def _add(self, connection: socket.socket) -> _Line:
        line = _Line(connection)
        self._lines.append(line)
        self._selector.register(connection, selectors.EVENT_READ, line)
        return line

    def _greet(self, line: _Line) -> None:
        """Rank 0 waits with it for the other's greeting: a stranger does not learn the word."""
        for message in [{"rank": self._boxes.rank, "word": self._boxes.word}, *self._told]:
            self._send_to(line, message)

    def _hear(self, key: selectors.SelectorKey) -> None:
        line = key.data
        if line is None:
            assert self._door is not None
            self._add(self._door.accept()[0])
            return
        try:
            for message in line.read():
                if line.rank is None:
                    self._introduce(line, message)
                self._obey(line, message)
        except OSError:
            self._drop(line)

    def _introduce(self, line: _Line, message: Dict[str, Any]) -> None:
        word = message.get("word")
        if not is_text(word) or not hmac.compare_digest(str(word).encode(), self._boxes.word.encode()):
            raise OSError("a stranger")
        line.rank = message["rank"]
        self._awaited.discard(message["rank"])
        if self._boxes.rank == 0:
            self._greet(line)

    def _obey(self, line: _Line, message: Dict[str, Any]) -> None:
        if line.rank in self._deadlines:
            self._deadlines[line.rank] = self._clock() + LOST_AFTER
            self._silent = [rank for rank in self._silent if rank != line.rank]
        fields, rank = Fields({name: each for name, each in message.items() if is_text(each)}), message["rank"]
        ending, ended = fields.text("ending"), fields.text("ended")
        if ended:
            self._deadlines.pop(rank, None)
        if ending in ENDING:
            self._learn(News(rank, ending))
        if ended in (FAILED, LOST):
            self._learn(News(rank, ended, fields.optional_text("cause"), fields.optional_text("evidence")))
        if self._boxes.rank == 0 and (ending or ended):
            self._tell_all(message, but=line)

    def _learn(self, news: News) -> None:
        self._deadlines.pop(news.rank, None)
        with self._guard:
            self._news.append(news)
        if news.kind == LOST and self._boxes.rank == 0:
            self._tell_all({"rank": news.rank, "ended": LOST})

    def _send_all(self) -> None:
        with self._guard:
            messages, self._to_tell = self._to_tell, []
        for message in messages:
            self._tell_all(message)

    def _tell_all(self, message: Dict[str, Any], but: Optional[_Line] = None) -> None:
        self._told.append(message)
        self._send(message, but)

    def _send(self, message: Dict[str, Any], but: Optional[_Line] = None) -> None:
        for line in list(self._lines):
            if line is not but and (line.rank is not None or self._boxes.rank != 0):
                self._send_to(line, message)

    def _send_to(self, line: _Line, message: Dict[str, Any]) -> None:
        try:
            line.send(message)
        except OSError:
            self._drop(line)

    def _drop(self, line: _Line) -> None:
        if line in self._lines:
            self._lines.remove(line)
            if line.rank is not None and line.rank in self._deadlines:
                self._silent.append(line.rank)
            self._selector.unregister(line.connection)
            line.connection.close()
