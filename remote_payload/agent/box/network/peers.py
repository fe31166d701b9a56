"""Whether another box can be reached, how fast, and that it is really that box: one listens, the other connects.

The two know each other by a pair of random texts that the laptop gave to both. A connection goes like this:

    → the greeting (32 bytes)        ← the reply (32 bytes); the connection is closed where the greeting is another one
    → one byte                       ← the same byte, PINGS times
    → 0xff, then data to the end     ← how many bytes came (8) and in how many seconds (8)
"""

import hmac
import selectors
import socket
import struct
import threading
import time
from typing import List, NamedTuple, Optional, Tuple

# Below the ports that the kernel gives to outgoing connections: a port that was free stays so until the run listens on it.
PORTS = range(20000, 32000)
WORDS = 32  # bytes of a greeting and of a reply
PINGS = 8
STREAM = b"\xff"
PIECE = b"\0" * (256 * 1024)
TALLY = struct.Struct(">Qd")
CONNECT_WITHIN = 3.0  # seconds; a network between two boxes answers within one
SILENCE = 10.0  # seconds without a byte, after which a connection is given up


class Peer(NamedTuple):
    """A box to connect to, at one of its addresses."""

    address: str
    port: int
    greeting: str
    reply: str


class Reached(NamedTuple):
    """How a connection to ``address`` went: ``error`` says why there is none."""

    address: str
    error: Optional[str] = None
    latency: Optional[float] = None  # seconds there and back
    rate: Optional[float] = None  # bytes a second, as they arrived there


def listen(ports: int) -> List[socket.socket]:
    """So many sockets that listen on free ports of PORTS, at all addresses. Raises OSError where too few are free."""
    found: List[socket.socket] = []
    start = time.time_ns() % len(PORTS)
    for number in range(len(PORTS)):
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            door.bind(("", PORTS[(start + number) % len(PORTS)]))
            door.listen(128)
            found.append(door)
        except OSError:
            door.close()
        if len(found) == ports:
            return found
    for door in found:
        door.close()
    raise OSError("no %d free ports from %d to %d" % (ports, PORTS[0], PORTS[-1]))


def answer_peers(doors: List[socket.socket], greeting: str, reply: str, over: threading.Event, seconds: float) -> int:
    """Answers everybody who knows the greeting, until ``over`` or for so many ``seconds``; how many those were."""
    served: List[bool] = []
    deadline = time.monotonic() + seconds

    def serve(connection: socket.socket) -> None:
        with connection:
            if _answer(connection, greeting, reply):
                served.append(True)

    with selectors.DefaultSelector() as selector:
        for door in doors:
            selector.register(door, selectors.EVENT_READ)
        while not over.is_set() and time.monotonic() < deadline:
            for key, _ in selector.select(0.2):
                connection = key.fileobj.accept()[0]  # type: ignore[union-attr]
                threading.Thread(target=serve, args=(connection,), daemon=True).start()
    return len(served)


def _answer(connection: socket.socket, greeting: str, reply: str) -> bool:
    """Whether it was a peer; what a stranger wants is of no interest."""
    try:
        connection.settimeout(SILENCE)
        if not hmac.compare_digest(_receive(connection, WORDS), greeting.encode("ascii")):
            return False
        connection.sendall(reply.encode("ascii"))
        while True:
            byte = connection.recv(1)
            if byte == STREAM:
                connection.sendall(TALLY.pack(*_count(connection)))
            elif byte:
                connection.sendall(byte)
            else:
                return True
    except OSError:
        return False


def _count(connection: socket.socket) -> Tuple[int, float]:
    """Bytes up to the end of the stream, and the seconds from the first to the last."""
    count, began, ended = 0, 0.0, 0.0
    buffer = bytearray(len(PIECE))
    while True:
        received = connection.recv_into(buffer)
        if not received:
            return count, ended - began
        ended = time.monotonic()
        began, count = began or ended, count + received


def reach(peer: Peer, seconds: float) -> Reached:
    """Connects to the peer, measures the latency, and for so many ``seconds`` how fast data gets there (0: not at all)."""
    try:
        with socket.create_connection((peer.address, peer.port), timeout=CONNECT_WITHIN) as connection:
            connection.settimeout(SILENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(peer.greeting.encode("ascii"))
            if not hmac.compare_digest(_receive(connection, WORDS), peer.reply.encode("ascii")):
                return Reached(peer.address, "another machine answers there")
            latency = min(_ping(connection) for _ in range(PINGS))
            return Reached(peer.address, None, latency, _rate(connection, seconds) if seconds else None)
    except socket.timeout:
        return Reached(peer.address, "no answer within %g s" % CONNECT_WITHIN)
    except OSError as error:
        return Reached(peer.address, error.strerror or str(error))


def _ping(connection: socket.socket) -> float:
    began = time.monotonic()
    connection.sendall(b"p")
    _receive(connection, 1)
    return time.monotonic() - began


def _rate(connection: socket.socket, seconds: float) -> Optional[float]:
    connection.sendall(STREAM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection.sendall(PIECE)
    connection.shutdown(socket.SHUT_WR)
    count, took = TALLY.unpack(_receive(connection, TALLY.size))
    return count / took if took > 0 else None


def _receive(connection: socket.socket, count: int) -> bytes:
    """So many bytes. Raises OSError where the connection ends before."""
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        if not piece:
            raise OSError("another machine answers there")
        found += piece
    return found
