"""Logging in as OpenSSH would: agents, certificates, tokens in names; and what is said when a box refuses."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.domain.errors import AuthFailed, ConnectFailed, GpurunError, HostError
from runner.transport.link import open_link
from runner.transport.openssh import ALIAS, ssh_argv
from runner.transport.resolve import resolve
from runner.transport.ssh import open_connection
from runner.transport.tcp import PendingConnection
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun

SSH = shutil.which("ssh") or "ssh"
Configure = Callable[..., None]


def keygen(*arguments: object) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def configure(gpurun: Gpurun, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes the user's ssh configuration of the host ``box``."""
    shims = tmp_path / "shims"  # OpenSSH finds the user's configuration by the password database, not by $HOME
    shims.mkdir()
    config = tmp_path / "ssh_config"
    (shims / "ssh").write_text(f'#!/bin/sh\n[ "$1" = -G ] && exec {SSH} -F {config} "$@"\nexec {SSH} "$@"\n')
    (shims / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    monkeypatch.setenv("GPURUN_HOME", str(gpurun.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def write(*lines: str) -> None:
        own = [
            "HostName 127.0.0.1",
            f"Port {box.port}",
            f"User {getpass.getuser()}",
            f"UserKnownHostsFile {tmp_path}/none",
        ]
        config.write_text("Host box\n" + "".join(f"  {line}\n" for line in [*own, *lines]))

    return write


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> Iterator[Callable[[Path], None]]:
    """An ssh agent; called with the file of a key, it holds that key."""
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    variables = dict(re.findall(r"(SSH_\w+)=([^;]+);", started))
    monkeypatch.setenv("SSH_AUTH_SOCK", variables["SSH_AUTH_SOCK"])
    yield lambda key: subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True) and None
    os.kill(int(variables["SSH_AGENT_PID"]), signal.SIGTERM)


def logs_in_with_both() -> None:
    host = resolve("box")
    open_connection(host, PendingConnection(host), lambda new, fingerprint: None).close()
    done = subprocess.run([*ssh_argv(host), ALIAS, "echo in"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.stdout == "in\n", done.stderr


def refusal() -> GpurunError:
    host = resolve("box")
    with pytest.raises(HostError) as caught:
        open_connection(host, PendingConnection(host), lambda new, fingerprint: None)
    return caught.value


@pytest.mark.parametrize("named", ["key.pub", "key"])
def test_a_public_key_stands_for_the_private_one_that_the_agent_holds(
    configure: Configure, agent: Callable[[Path], None], box: Box, tmp_path: Path, named: str
) -> None:
    """As 1Password's agent and hardware tokens are used: the private half is never a file."""
    for number in range(7):  # sshd takes six tries: the right one has to come first
        keygen("-t", "ed25519", "-N", "", "-f", tmp_path / f"other-{number}")
        agent(tmp_path / f"other-{number}")
    agent(box.local.key)
    shutil.copy(f"{box.local.key}.pub", tmp_path / "key.pub")
    configure(f"IdentityFile {tmp_path}/{named}", "IdentitiesOnly yes")
    logs_in_with_both()


def test_tokens_in_the_name_of_a_key_are_expanded(configure: Configure, box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "keys of mine"
    folder.mkdir()
    shutil.copy(box.local.key, folder / f"{getpass.getuser()}_127.0.0.1")
    configure(f'IdentityFile "{folder}/%r_%h"')
    logs_in_with_both()


@pytest.mark.parametrize("where", ["in a file", "in the agent"])
def test_a_certificate_of_another_name_is_offered_with_its_key(
    configure: Configure, agent: Callable[[Path], None], box: Box, tmp_path: Path, where: str
) -> None:
    keygen("-t", "ed25519", "-N", "", "-f", tmp_path / "authority")
    keygen("-t", "ecdsa", "-N", "", "-f", tmp_path / "key")
    keygen("-s", tmp_path / "authority", "-I", "me", "-n", getpass.getuser(), tmp_path / "key.pub")
    (tmp_path / "key-cert.pub").rename(tmp_path / "issued.pub")
    box.configure(f"TrustedUserCAKeys {tmp_path / 'authority.pub'}")
    if where == "in the agent":
        agent(tmp_path / "key")
        (tmp_path / "key").unlink()
    configure(f"IdentityFile {tmp_path}/key", f"CertificateFile {tmp_path}/issued.pub", "IdentitiesOnly yes")
    logs_in_with_both()


def test_a_key_that_needs_a_passphrase_is_named_with_what_to_type(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keygen("-t", "ed25519", "-N", "secret", "-f", tmp_path / "locked")
    configure(f"IdentityFile {tmp_path}/locked")
    refused = refusal()
    assert isinstance(refused, AuthFailed)
    assert f"it needs a passphrase: {tmp_path}/locked" in refused.message
    assert f"ssh-add {tmp_path}/locked" in refused.hint and "keychain" not in refused.hint
    monkeypatch.setattr("sys.platform", "darwin")
    assert "ssh-add --apple-load-keychain" in refusal().hint


def test_a_public_key_that_no_agent_holds_is_named(configure: Configure, tmp_path: Path) -> None:
    keygen("-t", "ed25519", "-N", "", "-f", tmp_path / "key")
    (tmp_path / "key").unlink()
    configure(f"IdentityFile {tmp_path}/key.pub", "IdentitiesOnly yes")
    assert f"no ssh agent holds its private half: {tmp_path}/key.pub" in refusal().message


def test_a_box_that_takes_only_passwords_is_not_blamed_on_the_key(configure: Configure, box: Box) -> None:
    box.configure("PubkeyAuthentication no", "PasswordAuthentication yes")
    configure(f"IdentityFile {box.local.key}")
    refused = refusal()
    assert isinstance(refused, AuthFailed)
    assert "the box accepts only: password" in refused.message
    assert "logs in with keys only" in refused.hint and "Name the key" not in refused.hint


@pytest.mark.parametrize(
    ("setting", "lacking"),
    [
        ("Ciphers chacha20-poly1305@openssh.com", "cipher"),
        ("KexAlgorithms sntrup761x25519-sha512@openssh.com", "key exchange"),
        ("MACs umac-128-etm@openssh.com", "MAC"),
    ],
)
def test_a_box_whose_algorithms_gpurun_lacks_is_told_which_to_allow(
    configure: Configure, box: Box, setting: str, lacking: str
) -> None:
    box.configure(setting, *(["Ciphers aes128-ctr"] if lacking == "MAC" else []))
    configure(f"IdentityFile {box.local.key}")
    refused = refusal()
    assert isinstance(refused, ConnectFailed)
    assert f"have no {lacking} in common" in refused.message
    assert f"{setting.split()[0]} +" in refused.hint and "address" not in refused.hint


def test_what_the_login_shell_writes_to_its_stderr_is_shown(configure: Configure, box: Box) -> None:
    box.configure('ForceCommand /bin/sh -c "echo open terminal failed: not a terminal >&2; exit 1"')
    configure(f"IdentityFile {box.local.key}")
    with (
        pytest.raises(GpurunError, match="open terminal failed: not a terminal"),
        open_link(resolve("box"), lambda new, fingerprint: None) as link,
    ):
        assert link.paths.root


def test_strict_host_key_checking_of_the_user_means_what_strict_means(configure: Configure, box: Box) -> None:
    configure(f"IdentityFile {box.local.key}", "StrictHostKeyChecking yes")
    refused = refusal()
    assert "is new to this machine" in refused.message and "SHA256:" in refused.message
    assert "StrictHostKeyChecking yes" in refused.meaning
