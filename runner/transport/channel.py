"""Opens an exec channel on a connection and starts the agent on it."""

from __future__ import annotations

import contextlib
import time

import paramiko

from remote_payload.agent.wire import protocol
from runner.domain.errors import ConnectFailed, GpurunError, HostError, LinkLost
from runner.domain.host import Host
from runner.transport import bundle
from runner.transport.bootstrap.command import fits_command, new_nonce, opening, start_command, upload
from runner.transport.bootstrap.handshake import Handshake, Need, Ready
from runner.transport.paramiko_private import execute
from runner.transport.session import AgentSession, StartedAgent
from runner.transport.tcp import CONNECT_TIMEOUT

# Bytes that the box may send before it waits for us. paramiko's default of 2 MiB allows 14 MB/s at a round trip of 150 ms.
WINDOW = 32 * 1024 * 1024


def open_session(transport: paramiko.Transport, host: Host) -> tuple[AgentSession, float]:
    """A session whose agent starts with its first request, and the time of a round trip to the box (seconds).

    The time is that of opening the channel: the box's own sshd answers it at once, whatever proxies are in between.
    Raises HostError or LinkLost.
    """
    began = time.monotonic()
    channel = _open_channel(transport, host)
    round_trip = time.monotonic() - began
    pipe = ChannelPipe(channel)
    session = AgentSession(pipe, str(host), lambda early, public: _start_agent(pipe, channel, host, early, public))
    return session, round_trip


class ChannelPipe:
    """A paramiko channel as the pipe of a session. It reads large pieces from the channel, and gives as many bytes as are wanted."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._channel.settimeout(protocol.SILENCE_LIMIT)
        self._unread = memoryview(b"")

    def read(self, count: int) -> bytes:
        if not self._unread:
            self._unread = memoryview(self._channel.recv(1 << 18))
        part, self._unread = self._unread[:count], self._unread[count:]
        return bytes(part)

    def push_back(self, data: bytes) -> None:
        """The next ``read`` gives these bytes first."""
        self._unread = memoryview(data + bytes(self._unread))

    def write(self, data: bytes) -> None:
        self._channel.sendall(data)

    def close(self) -> None:
        """Ends the agent. Over a lost link there is no agent to end, and paramiko's EOFError is no error."""
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.close()


def _open_channel(transport: paramiko.Transport, host: Host) -> paramiko.Channel:
    try:
        return transport.open_session(window_size=WINDOW, max_packet_size=1 << 18, timeout=CONNECT_TIMEOUT)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _no_session(transport, host, error) from None


def _start_agent(pipe: ChannelPipe, channel: paramiko.Channel, host: Host, early: bytes, public: bool) -> StartedAgent:
    """Starts the agent, uploading it where the box does not have it, with ``early`` frames to work on; tells where it works.

    ``public``: other users of the box may see the frames, so that they may be part of the command line.
    """
    nonce = new_nonce()
    wanted = bundle.agent()
    handshake = Handshake(nonce)
    try:
        first_input = opening(wanted.sha256, early)
        if public and fits_command(first_input):
            execute(channel, start_command(nonce, host.volume, first_input))
        else:
            execute(channel, start_command(nonce, host.volume))
            pipe.write(first_input)
        while data := pipe.read(1 << 18):
            answer = handshake.feed(data)
            if isinstance(answer, Need):
                pipe.write(upload(wanted))
                answer = handshake.feed(b"")
            if isinstance(answer, Ready):
                pipe.push_back(answer.rest)
                return StartedAgent(answer.root, answer.identity, answer.at_home)
    except TimeoutError:
        handshake.noise += _printed(channel)
        raise _silent(host, handshake.ended()) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _no_session(channel.transport, host, error) from None
    if _broke(channel.transport):
        raise _link_lost(host)
    handshake.noise += _printed(channel)
    raise handshake.ended()


def _printed(channel: paramiko.Channel) -> bytes:
    """The stderr of the login shell: tmux in a .bashrc, for example, writes there that it needs a terminal."""
    return channel.recv_stderr(1 << 14) if channel.recv_stderr_ready() else b""


def _silent(host: Host, ended: GpurunError) -> HostError:
    return ConnectFailed(
        f"{host} accepted the login, but no agent started within {protocol.SILENCE_LIMIT:.0f} seconds",
        meaning=ended.message,
        hint="The box may be overloaded, or its login shell waits for something. Try: ssh to it by hand.",
        retryable=True,
    )


def _broke(transport: paramiko.Transport | None) -> bool:
    """Whether the whole connection ended and not just this channel: paramiko closes channels a moment before it reports that."""
    if transport is None:
        return True
    transport.join(1.0)
    return not transport.is_active()


def _link_lost(host: Host) -> LinkLost:
    return LinkLost(
        f"the connection to {host} broke before gpurun's agent could start",
        meaning="What runs on the box goes on running.",
        hint="Try again; if this repeats, try ssh to it by hand.",
        retryable=True,
    )


def _no_session(transport: paramiko.Transport | None, host: Host, error: Exception) -> HostError:
    if _broke(transport):
        return _link_lost(host)
    return HostError(
        f"{host} accepted the login, but refuses to run a command ({type(error).__name__}: {error})",
        meaning="Nothing was started there.",
        hint="Use the provider's direct SSH address (with exec and without a forced command), not its web or proxy console.",
    )
