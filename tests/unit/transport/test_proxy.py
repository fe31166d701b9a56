"""The link that the fault tests and the benchmarks put between gpurun and a box."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.proxy import Proxy


class Echo:
    """A server that gives back what it gets, and keeps it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.got = bytearray()
        self.ended: list[str] = []
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                self.got += data
                connection.sendall(data)
            self.ended.append("close")
        except ConnectionResetError:
            self.ended.append("reset")
        connection.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


@contextmanager
def connected(link: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", link.port), timeout=10) as client:
        yield client


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := client.recv(count - len(data))):
        data += part
    return data


def until(condition: object, what: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def test_bytes_pass_unchanged_and_are_counted(echo: Echo) -> None:
    sent = bytes(range(256)) * 4000
    with Proxy(echo.port) as link, connected(link) as client:
        threading.Thread(target=client.sendall, args=(sent,)).start()
        assert read(client, len(sent)) == sent
        assert link.trace.bytes("to server") == len(sent)
        until(lambda: link.trace.bytes("to client") == len(sent), link.trace)


def test_an_answer_takes_a_round_trip_and_the_first_one_two(echo: Echo) -> None:
    with Proxy(echo.port, delay=0.05) as link:
        began = time.monotonic()
        with connected(link) as client:
            for at_least in (0.2, 0.1):  # the first time TCP's own handshake comes before it
                client.sendall(b"x")
                assert read(client, 1) == b"x"
                assert at_least <= time.monotonic() - began < at_least + 2
                began = time.monotonic()
        assert link.trace.round_trips == 2


def test_many_bytes_are_under_way_at_once(echo: Echo) -> None:
    with Proxy(echo.port, delay=0.05) as link, connected(link) as client:
        client.sendall(b"x")
        read(client, 1)
        began = time.monotonic()
        for _ in range(50):  # one after another they would take 50 × 0.1 s
            client.sendall(b"y" * 100)
            time.sleep(0.001)
        assert read(client, 5000) == b"y" * 5000
        assert time.monotonic() - began < 2.5


def test_the_rate_is_the_links_and_not_each_connections(echo: Echo) -> None:
    with Proxy(echo.port, rate=2e6) as link, connected(link) as one, connected(link) as other:
        began = time.monotonic()
        for client in (one, other):
            threading.Thread(target=client.sendall, args=(b"z" * 200_000,)).start()
        read(one, 200_000), read(other, 200_000)
        assert 0.2 <= time.monotonic() - began < 3


def test_what_is_frozen_is_kept_and_comes_when_it_thaws(echo: Echo) -> None:
    with Proxy(echo.port) as link, connected(link) as client:
        client.sendall(b"a")
        read(client, 1)
        link.freeze()
        client.sendall(b"b")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert bytes(echo.got) == b"a"
        link.thaw()
        client.settimeout(10)
        assert read(client, 1) == b"b"


def test_one_direction_can_be_frozen_alone(echo: Echo) -> None:
    """A request that arrives, whose answer does not."""
    with Proxy(echo.port) as link, connected(link) as client:
        client.sendall(b"a")
        read(client, 1)
        link.freeze("to client")
        client.sendall(b"b")
        until(lambda: bytes(echo.got) == b"ab", echo.got)
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_reset_reaches_both_ends_while_they_wait(echo: Echo) -> None:
    with Proxy(echo.port) as link, connected(link) as client:
        client.sendall(b"a")
        read(client, 1)
        assert link.cut("reset") == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        until(lambda: echo.ended == ["reset"], echo.ended)


def test_a_close_reaches_both_ends_as_an_end(echo: Echo) -> None:
    with Proxy(echo.port) as link, connected(link) as client:
        client.sendall(b"a")
        read(client, 1)
        link.cut("close")
        assert client.recv(1) == b""
        client.close()
        until(lambda: echo.ended == ["close"], echo.ended)


def test_a_cut_after_so_many_bytes_lets_exactly_those_pass(echo: Echo) -> None:
    with Proxy(echo.port) as link, connected(link) as client:
        link.cut_after(1000, "to server")
        client.sendall(b"q" * 5000)
        until(lambda: echo.ended == ["reset"], echo.ended)
        assert len(echo.got) <= 1000  # a reset may overtake the last of them in the receiver's buffer
        with connected(link) as again:  # once
            again.sendall(b"r" * 5000)
            assert read(again, 5000) == b"r" * 5000


def test_a_reset_gets_through_to_a_client_that_reads_nothing(echo: Echo) -> None:
    with Proxy(echo.port) as link, connected(link) as client:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                client.send(b"f" * 65536)
        until(lambda: echo.got, "nothing arrived")
        link.cut("reset")
        until(lambda: echo.ended == ["reset"], echo.ended)


def test_an_end_passes_on_its_own_direction_only(echo: Echo) -> None:
    with Proxy(echo.port) as link, connected(link) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read(client, 100) == b"last words"
        assert echo.ended == ["close"]


def test_refusing_resets_whoever_comes_until_it_is_over(echo: Echo) -> None:
    with Proxy(echo.port) as link:
        link.refuse()
        with pytest.raises(ConnectionResetError), connected(link) as client:
            client.recv(1)
        link.refuse(False)
        with connected(link) as client:
            client.sendall(b"a")
            assert read(client, 1) == b"a"


def test_a_server_that_is_not_there_is_a_reset(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Proxy(port) as link, pytest.raises(ConnectionResetError), connected(link) as client:
        client.recv(1)


def test_a_trace_shows_who_spoke_when_and_begins_anew(echo: Echo) -> None:
    with Proxy(echo.port) as link, connected(link) as client:
        for word in (b"one", b"three"):
            client.sendall(word)
            read(client, len(word))
        until(lambda: len(link.trace.bursts) == 4, link.trace)
        assert [(burst.direction, burst.bytes) for burst in link.trace.bursts] == [
            ("to server", 3), ("to client", 3), ("to server", 5), ("to client", 5),
        ]  # fmt: skip
        assert str(link.trace).endswith("2 round trips on 1 connections, 8 bytes → , 8 bytes ←")
        link.count_anew()
        client.sendall(b"x")
        read(client, 1)
        assert link.trace.round_trips == 1
