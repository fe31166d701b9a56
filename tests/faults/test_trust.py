"""Both SSH stacks take the same host keys and refuse the same ones, whatever the user's ssh configuration says."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.domain import places
from runner.domain.errors import HostError, HostKeyChanged
from runner.domain.host import Host
from runner.transport import known_hosts
from runner.transport.known_hosts import Key
from runner.transport.openssh import ALIAS, ssh_argv
from runner.transport.resolve import resolve
from runner.transport.ssh import open_connection
from runner.transport.tcp import PendingConnection
from tests.support.box import Box
from tests.support.cli import Gpurun
from tests.support.figures import Record

SSH = shutil.which("ssh") or "ssh"
DISAGREE = "host keys on which the two SSH stacks disagree"


class Unknown(HostError):
    """First contact: neither gpurun nor the user has seen this host."""


def refuse_new(host: Host, fingerprint: str) -> None:
    raise Unknown(fingerprint)


def by_paramiko(host: Host) -> str:
    try:
        connection = open_connection(host, PendingConnection(host), refuse_new)
    except (HostKeyChanged, Unknown):
        return "refused"
    connection.close()
    return "accepted"


def by_openssh(host: Host) -> str:
    done = subprocess.run([*ssh_argv(host), ALIAS, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return "accepted"
    assert re.search("Host key verification failed|HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY", done.stderr), (
        done.stderr
    )
    return "refused"


def verdict(figure: Record, host: Host) -> str:
    """What both say; the test fails where they differ."""
    one, other = by_paramiko(host), by_openssh(host)
    figure(DISAGREE, one != other, 0)  # beside the pins that gpurun had: places.known_hosts()
    return one


@dataclass
class Rig:
    """A box and a jump host with real sshds, and an ssh configuration of the user's."""

    box: Box
    jump: Box
    config: Path
    strangers: dict[str, Key]  # keys of somebody else, by type

    def configure(self, text: str) -> None:
        self.config.write_text(
            text.format(
                box=self.box.port, jump=self.jump.port, user=getpass.getuser(), key=self.box.local.key,
                jump_key=self.jump.local.key, folder=self.config.parent,
            )
        )  # fmt: skip

    def pin(self, box: Box, *keys: Key) -> None:
        """What gpurun has pinned for a box, instead of what was there."""
        name = f"[127.0.0.1]:{box.port}"
        known_hosts.forget(places.known_hosts(), name)
        for key in keys:
            known_hosts.pin(places.known_hosts(), name, key)

    def write_pins(self, text: str) -> None:
        places.known_hosts().parent.mkdir(parents=True, exist_ok=True)
        places.known_hosts().write_text(text)


def key_of(box: Box) -> Key:
    return Key(*box.local.host_key)


def make_key(folder: Path, kind: str) -> Key:
    folder.mkdir(exist_ok=True)
    file = folder / f"key-{kind}-{len(list(folder.iterdir()))}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(file)], check=True, stdin=subprocess.DEVNULL)
    words = Path(f"{file}.pub").read_text().split()
    return Key(words[0], words[1])


@pytest.fixture
def rig(gpurun: Gpurun, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """``ssh -G`` reads the test's configuration: OpenSSH finds the user's own by the password database, not by ``$HOME``."""
    jump = Box(Gpurun(tmp_path / "jump", {}))
    jump.configure("AllowTcpForwarding yes")
    shims = tmp_path / "shims"
    shims.mkdir()
    config = tmp_path / "ssh_config"
    (shims / "ssh").write_text(f'#!/bin/sh\n[ "$1" = -G ] && exec {SSH} -F {config} "$@"\nexec {SSH} "$@"\n')
    (shims / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    monkeypatch.setenv("GPURUN_HOME", str(gpurun.home))
    strangers = {kind: make_key(tmp_path / "strangers", kind) for kind in ("ed25519", "ecdsa")}
    yield Rig(box, jump, config, strangers)
    jump.local.stop()


BLOCK = "Host box\n  HostName 127.0.0.1\n  Port {box}\n  User {user}\n  IdentityFile {key}\n"

# What people write, and what a stranger's advice makes them write. {folder} is where the configuration lies.
CONFIGS = {
    "plain": BLOCK,
    "no checking": BLOCK + "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel QUIET\n",
    "accept new": BLOCK + "  StrictHostKeyChecking accept-new\n  UpdateHostKeys yes\n",
    "for every host": "StrictHostKeyChecking off\nForwardAgent yes\nNoHostAuthenticationForLocalhost yes\n" + BLOCK,
    "include": "Include {folder}/more\n" + BLOCK,
    "match": BLOCK + "Match host 127.0.0.1\n  StrictHostKeyChecking no\n  NoHostAuthenticationForLocalhost yes\n",
    "match exec": 'Match originalhost box exec "true"\n  StrictHostKeyChecking no\n' + BLOCK,
    "a command says the key": BLOCK + '  KnownHostsCommand /bin/sh -c "cat {folder}/said"\n  VerifyHostKeyDNS yes\n',
    "another name": BLOCK + "  HostKeyAlias somebody-else\n",
    "a shared connection": BLOCK + "  ControlMaster auto\n  ControlPath {folder}/master\n  ControlPersist 60\n",
    "a proxy command": BLOCK + "  ProxyCommand python3 {folder}/relay.py %h %p\n",
    "types": BLOCK + "  HostKeyAlgorithms ssh-ed25519\n  CASignatureAlgorithms ssh-ed25519\n",
}
QUICK = ("no checking", "match")
RELAY = """
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def out():
    while data := link.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536):
    link.sendall(data)
"""


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in CONFIGS]
)
def test_no_configuration_of_the_users_makes_a_stack_take_a_key_that_is_not_pinned(
    rig: Rig, figure: Record, tmp_path: Path, name: str
) -> None:
    (tmp_path / "relay.py").write_text(RELAY)
    (tmp_path / "more").write_text(
        "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  ForwardAgent yes\n"
    )
    (tmp_path / "said").write_text(f"[127.0.0.1]:{rig.box.port} {' '.join(key_of(rig.box))}\n")
    rig.configure(CONFIGS[name])
    host = resolve("box")
    assert (host.hostname, host.port) == ("127.0.0.1", rig.box.port)
    for pins, expected in (
        ([key_of(rig.box)], "accepted"),
        ([rig.strangers["ed25519"]], "refused"),
        ([rig.strangers["ecdsa"]], "refused"),
        ([], "accepted" if name == "a command says the key" else "refused"),
    ):
        rig.pin(rig.box, *pins)
        assert verdict(figure, host) == expected, pins


def pins_of(rig: Rig) -> dict[str, tuple[str, str]]:
    """Spellings of known_hosts: text and what is to come of it. NAME stands for the box, RIGHT and WRONG for keys of its type."""
    right, wrong = " ".join(key_of(rig.box)), " ".join(rig.strangers["ed25519"])
    other = " ".join(rig.strangers["ecdsa"])
    name = f"[127.0.0.1]:{rig.box.port}"
    return {
        "plain": (f"{name} {right}\n", "accepted"),
        "with a comment": (f"# mine\n\n{name} {right} root@box\n", "accepted"),
        "one of several names": (f"elsewhere,{name} {right}\n", "accepted"),
        "two keys of a type": (f"{name} {wrong}\n{name} {right}\n", "accepted"),
        "a key of each type": (f"{name} {other}\n{name} {right}\n", "accepted"),
        "wrong": (f"{name} {wrong}\n", "refused"),
        "another type": (f"{name} {other}\n", "refused"),
        "another port": (f"[127.0.0.1]:1 {right}\n", "refused"),
        "without brackets": (f"127.0.0.1 {right}\n", "accepted"),
        "without brackets, wrong": (f"127.0.0.1 {wrong}\n", "refused"),
        "a pattern": (f"[127.0.*]:* {right}\n", "accepted"),
        "a pattern, wrong": (f"[127.0.*]:* {wrong}\n", "refused"),
        "all but this one": (f"!{name},[127.0.*]:* {right}\n", "refused"),
        "revoked": (f"@revoked {name} {right}\n{name} {right}\n", "refused"),
        "revoked for all": (f"@revoked * {right}\n{name} {right}\n", "refused"),
        "another one revoked": (f"@revoked * {wrong}\n{name} {right}\n", "accepted"),
        "only an authority": (f"@cert-authority {name} {right}\n", "refused"),
    }


def test_every_spelling_of_known_hosts_means_the_same_to_both(rig: Rig, figure: Record) -> None:
    rig.configure(BLOCK)
    host = resolve("box")
    for name, (text, expected) in pins_of(rig).items():
        rig.write_pins(text)
        assert (name, by_paramiko(host)) == (name, expected)
        assert (name, verdict(figure, host)) == (name, expected)


@pytest.mark.parametrize("who", ["right", "wrong"])
def test_hashed_names_are_found_by_both(rig: Rig, figure: Record, who: str) -> None:
    rig.configure(BLOCK)
    key = key_of(rig.box) if who == "right" else rig.strangers["ed25519"]
    rig.write_pins(f"[127.0.0.1]:{rig.box.port} {' '.join(key)}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(places.known_hosts())], check=True, capture_output=True)
    assert "127.0.0.1" not in places.known_hosts().read_text()
    assert verdict(figure, resolve("box")) == ("accepted" if who == "right" else "refused")


@pytest.mark.slow
def test_a_host_with_a_key_of_each_type_is_taken_by_any_of_them(rig: Rig, figure: Record, tmp_path: Path) -> None:
    extra = [tmp_path / kind for kind in ("ecdsa", "rsa")]
    for file in extra:
        subprocess.run(["ssh-keygen", "-q", "-t", file.name, "-N", "", "-f", str(file)], check=True)
    rig.box.configure(*(f"HostKey {file}" for file in extra))
    rig.configure(BLOCK)
    host = resolve("box")
    for file in extra:
        words = Path(f"{file}.pub").read_text().split()
        rig.pin(rig.box, Key(words[0], words[1]))
        assert verdict(figure, host) == "accepted", file.name
    rig.pin(rig.box, key_of(rig.box))
    assert verdict(figure, host) == "accepted"
    rig.pin(rig.box, rig.strangers["ecdsa"])
    assert verdict(figure, host) == "refused"


@pytest.mark.slow
def test_a_certified_host_key_counts_as_the_plain_key_that_it_is(rig: Rig, figure: Record, tmp_path: Path) -> None:
    make_key(tmp_path / "authority", "ed25519")
    authority = next((tmp_path / "authority").glob("key-ed25519-0"))
    public = rig.box.local.folder / "host_key.pub"
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "box", "-h", "-n", "127.0.0.1", str(public)], check=True
    )
    rig.box.configure(f"HostCertificate {rig.box.local.folder / 'host_key-cert.pub'}")
    rig.configure(BLOCK)
    host = resolve("box")
    for pins, expected in (([key_of(rig.box)], "accepted"), ([rig.strangers["ed25519"]], "refused")):
        rig.pin(rig.box, *pins)
        assert verdict(figure, host) == expected


JUMP = (
    BLOCK + "  ProxyJump hop\nHost hop\n  HostName 127.0.0.1\n  Port {jump}\n  User {user}\n  IdentityFile {jump_key}\n"
)
JUMP_LAX = JUMP + "  StrictHostKeyChecking no\nHost *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"


@pytest.mark.parametrize("config", [JUMP, pytest.param(JUMP_LAX, marks=pytest.mark.slow)], ids=["plain", "no checking"])
def test_a_jump_host_with_another_key_is_refused_by_both_and_the_box_is_never_reached(
    rig: Rig, figure: Record, config: str
) -> None:
    rig.configure(config)
    host = resolve("box")
    assert [jump.port for jump in host.jumps] == [rig.jump.port]
    right, hop, wrong = [key_of(rig.box)], [key_of(rig.jump)], [rig.strangers["ed25519"]]
    for box_pins, hop_pins, expected in (
        (right, hop, "accepted"),
        (right, wrong, "refused"),
        (right, [], "refused"),
        (wrong, hop, "refused"),
        ([], hop, "refused"),
    ):
        rig.pin(rig.box, *box_pins)
        rig.pin(rig.jump, *hop_pins)
        assert verdict(figure, host) == expected, (box_pins, hop_pins)


def test_the_changed_key_of_a_jump_host_is_named_as_the_jump_hosts(rig: Rig) -> None:
    rig.configure(JUMP)
    rig.pin(rig.box, key_of(rig.box))
    rig.pin(rig.jump, rig.strangers["ed25519"])
    with pytest.raises(HostKeyChanged, match=rf"\[127\.0\.0\.1\]:{rig.jump.port} "):
        open_connection(resolve("box"), PendingConnection(resolve("box")), refuse_new)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{name} {right}", "accepted"),
        ("{name} {wrong}", "refused"),
        ("@revoked {name} {right}", "refused"),
        ("{name} {other}", "refused"),
    ],
)
def test_what_the_user_knows_of_a_new_host_counts(
    rig: Rig, figure: Record, tmp_path: Path, line: str, expected: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text(
        line.format(
            name=f"[127.0.0.1]:{rig.box.port}", right=" ".join(key_of(rig.box)),
            wrong=" ".join(rig.strangers["ed25519"]), other=" ".join(rig.strangers["ecdsa"]),
        ) + "\n"
    )  # fmt: skip
    rig.configure(BLOCK + f"  UserKnownHostsFile {theirs}\n")
    assert verdict(figure, resolve("box")) == expected
    assert known_hosts.pinned(places.known_hosts(), f"[127.0.0.1]:{rig.box.port}") == (
        [key_of(rig.box)] if expected == "accepted" else []
    )


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An ssh agent of the user's, there to be forwarded."""
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    variables = dict(re.findall(r"(SSH_\w+)=([^;]+);", started))
    monkeypatch.setenv("SSH_AUTH_SOCK", variables["SSH_AUTH_SOCK"])
    yield
    os.kill(int(variables["SSH_AGENT_PID"]), signal.SIGTERM)


NOSY = (
    "ForwardAgent yes\nForwardX11 yes\nPermitLocalCommand yes\nLocalCommand touch {folder}/local-command\nSendEnv CANARY\n"
    "SetEnv CANARY=set\nRemoteForward 127.0.0.1:0 127.0.0.1:22\n"
    + BLOCK
    + "  RequestTTY force\n  RemoteCommand touch {folder}/remote\n"
)


def asked(connection: object, command: str) -> str:
    done = connection.run(command, hide=True, in_stream=False)  # type: ignore[attr-defined]
    return str(done.stdout)


def test_nothing_is_forwarded_to_the_box_and_no_command_of_the_configuration_runs(
    rig: Rig, agent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sshd would allow all of it."""
    monkeypatch.setenv("CANARY", "sent")
    rig.box.configure("AllowAgentForwarding yes", "AllowTcpForwarding yes", "AcceptEnv *")
    rig.configure(NOSY)
    rig.pin(rig.box, key_of(rig.box))
    host = resolve("box")
    question = 'echo "[$SSH_AUTH_SOCK][$CANARY][$DISPLAY]"'
    connection = open_connection(host, PendingConnection(host), refuse_new)
    assert asked(connection, question) == "[][][]\n"
    connection.close()
    answer = subprocess.run(
        [*ssh_argv(host), ALIAS, question], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert answer.stdout == "[][][]\n"
    assert not (tmp_path / "local-command").exists() and not (tmp_path / "remote").exists()


@pytest.mark.slow
def test_the_check_of_forwarding_can_fail(rig: Rig, agent: None) -> None:
    """The user's own ssh, with that configuration, does forward the agent to this box."""
    rig.box.configure("AllowAgentForwarding yes")
    rig.configure(BLOCK + "  ForwardAgent yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n")
    answer = subprocess.run(
        [SSH, "-F", str(rig.config), "box", 'echo "[$SSH_AUTH_SOCK]"'],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert re.fullmatch(r"\[/.+\]\n", answer.stdout), answer
