"""What a network, a stranger's sshd or a careless configuration does to a connection."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.proxy import Proxy

START = 10.0  # seconds that Python may need to start and end on a busy machine
SAY = "import os; print('hello from', os.environ['GPURUN_RUN_ID'], os.environ.get('SSH_AUTH_SOCK'))"
NASTY = b"\x1b]52;c;aGFja2Vk\x07\x1b]0;title\x07\x1bP+q\x1b\\\x9b5n \x1b[2J"


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server in which ``handle`` gets each connection in a thread; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.slow
def test_01_no_answer_to_syn_is_an_error_within_15_seconds(gpurun: Gpurun, job: Any, figure: Record) -> None:
    full = socket.create_server(
        ("127.0.0.1", 0), backlog=0
    )  # nobody accepts: with its queue full, Linux drops what comes
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(full.getsockname())
    began = time.monotonic()
    failed = gpurun("submit", str(job(SAY)), "--host", f"root@127.0.0.1:{full.getsockname()[1]}", check=3)
    assert "no answer within" in failed.stderr
    figure("no answer to SYN, error after", time.monotonic() - began, 15 + START, "s")
    for each in [*waiting, full]:
        each.close()


@pytest.mark.parametrize(
    "after",
    [10, *(pytest.param(count, marks=pytest.mark.slow) for count in (0, 41, 700, 1500, 2500, 3300, 5000))],
)
def test_02_a_reset_after_n_bytes_is_tried_again(gpurun: Gpurun, box: Box, job: Any, after: int) -> None:
    with Proxy(box.port) as link:
        link.cut_after(after, "to client")
        done = gpurun("submit", str(job(SAY)), "--host", box.address(link.port))
        assert link.trace.connections > 1
    assert "trying again" in done.stderr
    assert len(list((box.root / "runs").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("silent", ["before the banner", "after the banner"])
def test_03_silence_during_the_handshake_is_bounded(gpurun: Gpurun, job: Any, silent: str) -> None:
    def handle(client: socket.socket) -> None:
        if silent == "after the banner":
            client.sendall(b"SSH-2.0-silence\r\n")
        while client.recv(4096):
            pass

    began = time.monotonic()
    with serving(handle) as port:
        failed = gpurun("submit", str(job(SAY)), "--host", f"root@127.0.0.1:{port}", check=3)
    assert "cannot reach" in failed.stderr and "15 seconds" in failed.stderr
    assert time.monotonic() - began < 45


def test_04_a_changed_host_key_stops_everything_after_one_try(
    gpurun: Gpurun, box: Box, job: Any, figure: Record
) -> None:
    address = box.address()
    gpurun("check", str(job(SAY)), "--host", address)
    shutil.rmtree(box.root)
    box.rekey()
    with Proxy(box.port) as link:
        pinned = gpurun.home / "known_hosts"
        pinned.write_text(pinned.read_text().replace(str(box.port), str(link.port)))
        for words in (["submit", str(job(SAY))], ["check", str(job(SAY))], ["clean"], ["list"]):
            refused = gpurun(*words, "--host", box.address(link.port), check=3)
            assert "host key" in refused.stderr and "hosts forget" in refused.stderr
        assert link.trace.connections == 4
    figure("changed host keys accepted", int(box.root.exists()), 0)


@pytest.mark.slow
def test_04_a_host_key_that_changes_while_a_log_is_followed_ends_the_follower(
    gpurun: Gpurun, box: Box, job: Any
) -> None:
    address = box.address()
    gpurun("submit", str(job("import time\nprint('here', flush=True)\ntime.sleep(60)")), "--host", address)
    following = gpurun.start("logs", "-f")
    assert following.stdout is not None and following.stdout.readline() == "here\n"
    box.rekey()
    _, said = following.communicate(timeout=60)
    assert following.returncode == 3 and "host key" in said
    gpurun("hosts", "forget", f"[127.0.0.1]:{box.port}")
    gpurun("stop", "--grace", "0")


@pytest.mark.slow
def test_05_another_type_of_host_key_stops_everything(gpurun: Gpurun, box: Box, job: Any, figure: Record) -> None:
    gpurun("check", str(job(SAY)), "--host", box.address())
    shutil.rmtree(box.root)
    box.rekey("ecdsa")
    refused = gpurun("submit", str(job(SAY)), "--host", box.address(), check=3)
    assert "ecdsa" in refused.stderr and "hosts forget" in refused.stderr
    figure("changed host keys accepted", int(box.root.exists()), 0)


def test_06_a_forgotten_host_is_pinned_anew(gpurun: Gpurun, box: Box, job: Any) -> None:
    gpurun("check", str(job(SAY)), "--host", box.address())
    old = gpurun.json("hosts")["hosts"][0]["fingerprints"]
    box.rekey()
    gpurun("check", str(job(SAY)), "--host", box.address(), check=3)
    gpurun("hosts", "forget", f"[127.0.0.1]:{box.port}")
    again = gpurun("check", str(job(SAY)), "--host", box.address())
    new = gpurun.json("hosts")["hosts"][0]["fingerprints"]
    assert new != old and new[0].split()[1] in again.stderr


@pytest.mark.parametrize(
    "host",
    [
        "-oProxyCommand=touch {canary}",
        "root@-oProxyCommand=touch {canary}",
        "ssh -oProxyCommand='touch {canary}' -- -oProxyCommand=x",
        "x;touch {canary}",
        "$(touch {canary})",
        "ssh root@host touch {canary}",
        "root@host\ntouch {canary}",
    ],
)
def test_07_a_host_that_is_an_option_or_a_command_is_refused_here(
    gpurun: Gpurun, job: Any, tmp_path: Path, host: str
) -> None:
    canary = tmp_path / "canary"
    refused = gpurun("submit", str(job(SAY)), "--host", host.format(canary=canary), check=3)
    assert "Nothing was contacted" in refused.stderr
    assert not canary.exists()


def relay_after(greeting: bytes, port: int) -> Callable[[socket.socket], None]:
    """Says ``greeting`` before the server's own first words."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def handle(client: socket.socket) -> None:
        try:
            client.sendall(greeting)
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=pump, args=(client, server), daemon=True).start()
        pump(server, client)

    return handle


@pytest.mark.slow
def test_08_the_longest_login_banner_full_of_escapes_does_no_harm(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    banner = tmp_path / "banner"
    banner.write_bytes(
        (NASTY + b"banner\n") * ((250 << 10) // (len(NASTY) + 7))
    )  # sshd sends it as one packet: 256 KiB at most
    box.configure(f"Banner {banner}")
    done = gpurun("submit", str(job(SAY)), "--host", box.address())
    shown = done.stdout + done.stderr + gpurun("logs", "-f").stdout
    assert "hello from" in shown and "banner" not in shown
    assert not set(shown) & set("\x1b\x07\x9b\x90\x9d")


def test_08_a_megabyte_before_the_version_is_bounded_and_harmless(gpurun: Gpurun, box: Box, job: Any) -> None:
    greeting = (NASTY + b"x" * 200 + b"\r\n") * 4800
    began = time.monotonic()
    with serving(relay_after(greeting, box.port)) as port:
        failed = gpurun("submit", str(job(SAY)), "--host", box.address(port), check=3)
    assert not set(failed.stderr) & set("\x1b\x07\x9b\x90\x9d")
    assert time.monotonic() - began < 45


@pytest.mark.slow
def test_09_an_agent_with_20_keys_still_logs_in_with_the_named_one(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    box.configure("MaxAuthTries 3")
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    variables = dict(re.findall(r"(SSH_\w+)=([^;]+);", started))
    try:
        for number in range(20):
            key = tmp_path / f"key-{number}"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env={**os.environ, **variables})
        gpurun.env.update(variables)
        gpurun("submit", str(job(SAY)), "--host", box.address())
        assert gpurun("logs", "-f").stdout.endswith(" None\n")  # the agent was not forwarded
    finally:
        os.kill(int(variables["SSH_AGENT_PID"]), signal.SIGTERM)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ForceCommand echo This account may only look at things", "may only look"),
        ("ForceCommand internal-sftp", "refuses to run a command|ended the session|no agent started"),
        ('ForceCommand script -qec "$SSH_ORIGINAL_COMMAND" /dev/null', "forces a terminal"),
    ],
)
def test_10_a_forced_command_or_terminal_is_named(gpurun: Gpurun, box: Box, job: Any, setting: str, said: str) -> None:
    box.configure(setting)
    failed = gpurun("submit", str(job(SAY)), "--host", box.address(), check=3)
    assert re.search(said, failed.stderr), failed.stderr
    assert not (box.root / "runs").exists()


class NoExec(paramiko.ServerInterface):
    """An sshd that lets everybody in and runs nothing, as some providers' proxies do."""

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return False


@pytest.mark.slow
def test_10_a_server_that_refuses_exec_is_named(gpurun: Gpurun, box: Box, job: Any) -> None:
    transports = []

    def handle(client: socket.socket) -> None:
        transport = paramiko.Transport(client)
        transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(box.local.folder / "host_key")))
        transports.append(transport)
        transport.start_server(server=NoExec())

    with serving(handle) as port:
        failed = gpurun("submit", str(job(SAY)), "--host", box.address(port), check=3)
    assert "accepted the login, but" in failed.stderr
    for transport in transports:
        transport.close()


@pytest.mark.slow
def test_11_one_session_a_connection_is_enough(gpurun: Gpurun, box: Box, job: Any) -> None:
    box.configure("MaxSessions 1")
    run_id = gpurun("submit", str(job(SAY)), "--host", box.address()) and gpurun.json("list")["runs"][0]["run_id"]
    assert gpurun("logs", "-f").stdout.startswith(f"hello from {run_id}")
    wait_until(lambda: gpurun.json("status")["status"]["outcome"] == "succeeded")
    gpurun("status")
