"""A TCP link with a temper, between a client and a server on loopback: late, narrow, cut, frozen, and counted.

    with Proxy(port_of_sshd, delay=0.025, rate=12.5e6) as link:   # a round trip of 50 ms, 100 Mbit/s
        …  "ssh -p {link.port} …"  …
        print(link.trace)

Delay does not serialise: any number of bytes may be under way at once. ``rate`` is that of the link: all connections of one
direction share it. Opening a connection costs the round trip that TCP's own handshake would cost. All of it may be
changed while connections are open.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["to server", "to client"]
How = Literal["reset", "close"]  # RST (what a dead NAT entry or a killed peer gives), or FIN
BOTH: tuple[Direction, Direction] = ("to server", "to client")

PIECE = 16 * 1024  # bytes taken at once: at 100 Mbit/s, 1.3 ms
SOCKET_BUFFER = 128 << 10  # bytes that the kernel may take for a link with a rate
UNDER_WAY = 64 << 20  # bytes a link without a rate holds before the sender has to wait
QUEUE = 256 * 1024  # bytes that wait before a narrow link, as in a router


@dataclass(frozen=True)
class Burst:
    """Bytes in one direction with nothing in the other between them, as the client's end saw them."""

    connection: int
    direction: Direction
    began: float  # seconds since the proxy or the trace began
    ended: float
    bytes: int


@dataclass
class Trace:
    """What crossed the link. The client's end is where it is seen: sent when it leaves the client, heard when it arrives there."""

    bursts: list[Burst] = field(default_factory=list)
    connections: int = 0
    began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: dict[int, int] = field(default_factory=dict)  # connection → its last burst

    def opened(self) -> int:
        with self._lock:
            self.connections += 1
            return self.connections

    def add(self, connection: int, direction: Direction, count: int) -> None:
        with self._lock:
            now, place = time.monotonic() - self.began, self._last.get(connection)
            if place is not None and self.bursts[place].direction == direction:
                last = self.bursts[place]
                self.bursts[place] = Burst(connection, direction, last.began, now, last.bytes + count)
            else:
                self._last[connection] = len(self.bursts)
                self.bursts.append(Burst(connection, direction, now, now, count))

    @property
    def round_trips(self) -> int:
        """How often a client spoke first or after it had heard something, over all connections. TCP's handshakes are not counted."""
        return sum(burst.direction == "to server" for burst in self.bursts)

    def bytes(self, direction: Direction) -> int:
        return sum(burst.bytes for burst in self.bursts if burst.direction == direction)

    def __str__(self) -> str:
        lines = [
            f"{burst.began * 1000:8.1f} ms  #{burst.connection} {'→' if burst.direction == 'to server' else '  ←'} {burst.bytes}"
            for burst in list(self.bursts)
        ]
        total = f"{self.round_trips} round trips on {self.connections} connections"
        return "\n".join([*lines, f"{total}, {self.bytes('to server')} bytes → , {self.bytes('to client')} bytes ←"])


class Lane:
    """One direction of the link, shared by its connections."""

    def __init__(self, direction: Direction, delay: float, rate: float | None) -> None:
        self.direction = direction
        self.delay = delay  # seconds, one way
        self.rate = rate  # bytes a second; None for no limit
        self.flowing = threading.Event()
        self.flowing.set()
        self.left: int | None = None  # bytes until the cut; None for no cut
        self._free_at = 0.0
        self._lock = threading.Lock()

    @property
    def capacity(self) -> int:
        return UNDER_WAY if self.rate is None else QUEUE + int(self.rate * self.delay)

    def arrival(self, count: int, sent_at: float) -> float:
        """When the last of ``count`` bytes comes out at the other end; the link is taken until they are in."""
        with self._lock:
            begin = max(sent_at, self._free_at)
            self._free_at = begin + (count / self.rate if self.rate else 0.0)
            return self._free_at + self.delay

    def allow(self, data: bytes) -> tuple[bytes, bool]:
        """What of ``data`` still passes, and whether the cut comes after it."""
        with self._lock:
            if self.left is None:
                return data, False
            passed = data[: self.left]
            self.left -= len(passed)
            cut = self.left <= 0
            if cut:
                self.left = None
            return passed, cut


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to ``server_port`` there, until the block ends."""

    def __init__(self, server_port: int, *, delay: float = 0.0, rate: float | None = None) -> None:
        self.server_port = server_port
        self.lanes = {direction: Lane(direction, delay, rate) for direction in BOTH}
        self.trace = Trace()
        self.accepting = True
        self._how: How = "reset"
        self._connections: list[_Connection] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        if rate is not None:  # else the kernel takes megabytes at once, which no slow link does
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Proxy:
        _start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept; close alone does not
        self._listener.close()
        self.cut("reset")
        self.thaw()

    # Tempers

    def set(self, *, delay: float | None = None, rate: float | None = None) -> None:
        """Another delay (seconds, one way) or rate (bytes a second) from now on; None leaves it as it is."""
        for lane in self.lanes.values():
            lane.delay = lane.delay if delay is None else delay
            lane.rate = lane.rate if rate is None else rate

    def freeze(self, *directions: Direction) -> None:
        """Stops forwarding in these directions (both when none is named); sockets stay open, new ones are taken and frozen too."""
        for direction in directions or BOTH:
            self.lanes[direction].flowing.clear()

    def thaw(self) -> None:
        """Goes on where it stopped; nothing is lost."""
        for lane in self.lanes.values():
            lane.flowing.set()

    def cut(self, how: How = "reset") -> int:
        """Ends every open connection at both ends, at once; how many there were. The next ones pass."""
        with self._lock:
            ended, self._connections = self._connections, []
        open_ones = [connection for connection in ended if connection.cut(how)]
        return len(open_ones)

    def cut_after(self, count: int, direction: Direction, how: How = "reset") -> None:
        """Ends every connection once ``count`` more bytes have passed in a direction. Once."""
        self._how = how
        self.lanes[direction].left = count

    def refuse(self, refusing: bool = True) -> None:
        """Resets whoever connects, from now on."""
        self.accepting = not refusing

    def count_anew(self) -> None:
        """Begins a new trace; connections that are open go on in it."""
        fresh = Trace()
        fresh.connections = self.trace.connections
        self.trace = fresh

    # Connections

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.accepting:
                _end(client, "reset")
                continue
            connection = _Connection(self, client)
            with self._lock:
                self._connections = [other for other in self._connections if not other.over] + [connection]
            _start(connection.open)

    def forward(self, connection: _Connection, lane: Lane, data: bytes, target: socket.socket) -> None:
        """Called when bytes have come out of the link. Raises OSError when there is nobody to give them to."""
        lane.flowing.wait()
        passed, cut = lane.allow(data)
        if passed and lane.direction == "to client":
            self.trace.add(connection.number, lane.direction, len(passed))  # first: the client may answer at once
        connection.send(target, passed)
        if cut:
            self.cut(self._how)


class _Connection:
    """One client's connection and its twin to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.number = proxy.trace.opened()
        self.client = client
        self.server = socket.socket()
        self.over = False
        self.established = (
            time.monotonic() + 2 * proxy.lanes["to server"].delay
        )  # SYN and its answer: until then nobody speaks
        self._ended = 0
        self._lock = threading.Lock()
        for end in (self.client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))

    def open(self) -> None:
        """Both directions, each with a thread that takes and one that gives."""
        there, back = (_Pipe(self.proxy.lanes[direction]) for direction in BOTH)
        _start(self._take, self.client, there)
        time.sleep(max(0.0, self.established + there.lane.delay - time.monotonic()))
        try:
            self.server.connect(("127.0.0.1", self.proxy.server_port))
        except OSError:
            self.cut("reset")
            return
        _start(self._give, there, self.server)
        _start(self._take, self.server, back)
        _start(self._give, back, self.client)

    def send(self, target: socket.socket, data: bytes) -> None:
        """``sendall`` that a cut can end: a call that waits keeps its socket open, and no RST goes out."""
        view = memoryview(data)
        while view:
            if self.over:
                raise OSError("the connection was cut")
            with contextlib.suppress(BlockingIOError):
                view = view[target.send(view) :]

    def cut(self, how: How) -> bool:
        """Ends both ends; False when they had ended before."""
        with self._lock:
            was_open, self.over = not self.over, True
        if was_open:
            for end in (self.client, self.server):
                _end(end, how)
        return was_open

    def _take(self, source: socket.socket, pipe: _Pipe) -> None:
        data = b"begin"
        while data:
            pipe.lane.flowing.wait()
            try:
                data = source.recv(PIECE)
            except OSError:
                data = b""
            sent_at = max(time.monotonic(), self.established)
            if data and pipe.lane.direction == "to server" and not self.over:
                self.proxy.trace.add(self.number, pipe.lane.direction, len(data))
            pipe.put(pipe.lane.arrival(len(data), sent_at), data)
        if self.over:  # after FIN: what the other end still sent has been read, so that closing sends no RST
            source.close()

    def _give(self, pipe: _Pipe, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = pipe.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    if not self.over:  # a cut ends the other direction's recv too, and is no end to pass on
                        target.shutdown(socket.SHUT_WR)
                    break
                self.proxy.forward(self, pipe.lane, data, target)
        pipe.abandon()
        with self._lock:
            self._ended += 1
            both = self._ended == 2 and not self.over
            self.over = self.over or both
        if both:
            self.client.close()
            self.server.close()


class _Pipe:
    """Bytes under way, each piece with the moment it comes out."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._abandoned = False
        self._changed = threading.Condition()

    def put(self, due: float, data: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._held < self.lane.capacity or self._abandoned)
            self._pieces.append((due, data))
            self._held += len(data)
            self._changed.notify_all()

    def get(self) -> tuple[float, bytes]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._pieces))
            due, data = self._pieces.popleft()
            self._held -= len(data)
            self._changed.notify_all()
            return due, data

    def abandon(self) -> None:
        """Nobody gets any more: whoever puts must not wait."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()


def _start(function: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, name="proxy", daemon=True).start()


def _end(end: socket.socket, how: How) -> None:
    with contextlib.suppress(OSError):
        if how == "close":
            end.shutdown(socket.SHUT_WR)  # _take reads to the end, then closes
            return
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)  # sends nothing, and ends a recv that would keep the socket open
    with contextlib.suppress(OSError):
        end.close()
