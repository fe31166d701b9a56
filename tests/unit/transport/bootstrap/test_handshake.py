"""What the box answers between the login shell's output and the first frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.domain.errors import BoxNotReady, HostError
from runner.transport.bootstrap.command import start_command
from runner.transport.bootstrap.handshake import Handshake, Need, Ready

NONCE = "0123456789abcdef" * 2
LINE = NONCE.encode()


def feed_all(handshake, data, size=1 << 16):
    answers = [handshake.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return [answer for answer in answers if answer is not None]


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_lines_are_found_behind_noise_that_ends_without_a_newline(size):
    data = b"Welcome!\x1b[31m\r\n$ " + LINE + b" need " + b"a" * 64 + b"\n" + LINE + b" ready 1 /root/.gpurun-box\n"
    handshake = Handshake(NONCE)
    assert handshake.feed(data[:100] if size > 1000 else b"") in (None,)
    handshake = Handshake(NONCE)
    cut = data.index(b"\n" + LINE + b" ready") + 1
    assert feed_all(handshake, data[:cut], size) == [Need("a" * 64)]
    assert feed_all(handshake, data[cut:], size) == [Ready(1, "/root/.gpurun-box", "", b"")]
    assert handshake.noise.endswith(b"$ ")


def test_bytes_after_ready_are_the_first_frames():
    handshake = Handshake(NONCE)
    assert handshake.feed(LINE + b" ready 1 /root/.gpurun-box\nH\x00\x00") == Ready(
        1, "/root/.gpurun-box", "", b"H\x00\x00"
    )


def test_the_box_tells_its_identity():
    ready = Handshake(NONCE).feed(LINE + b" ready 1 /root/.gpurun-box " + b"0f" * 16 + b"\n")
    assert ready == Ready(1, "/root/.gpurun-box", "0f" * 16, b"")


@pytest.mark.parametrize("identity", ["", "0f" * 16])
def test_the_box_says_whether_it_works_in_the_home_folder(identity):
    line = f" ready 1 /root/.gpurun-box {identity} home\n".encode()
    assert Handshake(NONCE).feed(LINE + line) == Ready(1, "/root/.gpurun-box", identity, b"", at_home=True)


def test_a_shell_that_echoes_the_command_is_not_an_answer():
    handshake = Handshake(NONCE)
    assert handshake.feed(start_command(NONCE).encode() + b"\n") is None


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_noise_before_the_line_is_skipped(noise, size):
    handshake = Handshake(NONCE)
    assert feed_all(handshake, noise + LINE + b" ready 1 /r/.gpurun-box\n", size)[0][:2] == (1, "/r/.gpurun-box")


def test_endless_noise_ends_in_an_error_and_bounded_memory():
    handshake = Handshake(NONCE)
    with pytest.raises(BoxNotReady, match="more than 1 MiB"):
        for _ in range(1000):
            handshake.feed(b"\x1b]52;c;" + b"x" * 65536)
            assert len(handshake._unread) + len(handshake.noise) < 20000


def test_a_line_without_an_end_is_noise():
    handshake = Handshake(NONCE)
    with pytest.raises(BoxNotReady):
        for _ in range(200):
            handshake.feed(LINE + b" ready " + b"9" * 65536)


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        (b" refused python none\n", BoxNotReady, "no Python ≥ 3.8"),
        (b" refused terminal standard input is a terminal\r\n", BoxNotReady, "forces a terminal"),
        (b" refused root [Errno 30] Read-only file system\n", BoxNotReady, "Read-only file system"),
        (b" ready one /root\n", HostError, "makes no sense"),
        (b" ready 1 root\n", HostError, "makes no sense"),
        (b" ready 1 /root/.gpurun-box " + b"g" * 32 + b"\n", HostError, "makes no sense"),
    ],
)
def test_refusals_are_named(line, error, says):
    with pytest.raises(error, match=says):
        Handshake(NONCE).feed(LINE + line)


def test_a_channel_that_ends_is_explained_by_what_the_box_said_without_its_escapes():
    handshake = Handshake(NONCE)
    handshake.feed(b"This account is \x1b]0;owned\x07currently not available.\n")
    error = handshake.ended()
    assert "This account is currently not available." in error.message and "\x1b" not in error.message
