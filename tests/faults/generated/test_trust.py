"""gpurun never accepts a host that ``ssh`` with the same configuration refuses.

Random configurations of the user's (aliases, several known_hosts files, commands, certificates, revocations, hashed names, ports, jump
hosts, every StrictHostKeyChecking) are given to ``ssh`` and to gpurun, each for its first contact with the same sshd.
"""

from __future__ import annotations

import getpass
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runner.domain import places
from runner.domain.errors import HostError, HostKeyChanged
from runner.transport import known_hosts
from runner.transport.resolve import resolve
from runner.transport.ssh import open_connection
from runner.transport.tcp import PendingConnection
from tests.support.box import Box
from tests.support.cli import Gpurun
from tests.support.trials import trials

SSH = shutil.which("ssh") or "ssh"
KINDS = ("ed25519", "ecdsa", "rsa")
STRICT = (None, "ask", "yes", "accept-new", "no", "off")


def make_key(file: Path, kind: str) -> str:
    """A key pair; its public half as known_hosts spells it."""
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "", "-f", str(file)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return " ".join(file.with_name(file.name + ".pub").read_text().split()[:2])


@dataclass
class Rig:
    """Two sshds with a key of each type (the box's have certificates), a jump host, and keys of strangers and authorities."""

    folder: Path
    box: Box
    jump: Box
    keys: dict[str, dict[str, str]]  # "right", "wrong", "authority", "stranger's authority": a key of each type

    def line(self, chance: random.Random, port: int, alias: str | None) -> str:
        """One random line of a known_hosts file."""
        names = [
            f"[127.0.0.1]:{port}",
            "127.0.0.1",
            "[127.0.*]:*",
            f"x,[127.0.0.1]:{port}",
            "*",
            f"!127.0.0.1,[127.0.0.1]:{port}",
        ]
        name = chance.choice([*names, *([alias] * 6 if alias else ["elsewhere"])])
        marker = chance.choice(["", "", "", "", "@revoked ", "@cert-authority "])
        whose = ["right", "right", "wrong"] if marker != "@cert-authority " else ["authority", "stranger's authority"]
        return f"{marker}{name} {self.keys[chance.choice(whose)][chance.choice(KINDS)]}\n"

    def lines(self, chance: random.Random, port: int, alias: str | None) -> str:
        return "".join(self.line(chance, port, alias) for _ in range(chance.choice([0, 1, 1, 2, 3])))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("trust")
    boxes = [Box(Gpurun(folder / name, {})) for name in ("box", "jump")]
    keys: dict[str, dict[str, str]] = {"right": {}, "wrong": {}, "authority": {}, "stranger's authority": {}}
    for whose in ("wrong", "authority", "stranger's authority"):
        keys[whose] = {kind: make_key(folder / f"{whose}-{kind}", kind) for kind in KINDS}
    settings = []
    for kind in KINDS:
        file = boxes[0].local.folder / f"host-{kind}"
        keys["right"][kind] = make_key(file, kind)
        subprocess.run(
            ["ssh-keygen", "-q", "-s", str(folder / "authority-ed25519"), "-I", "box", "-h", "-n", "127.0.0.1,alias", f"{file}.pub"],
            check=True,
        )  # fmt: skip
        settings += [f"HostKey {file}", f"HostCertificate {file}-cert.pub"]
    # The embedded box's own ed25519 key would come first: one key of each type is enough.
    text = boxes[0].config.read_text()
    boxes[0].config.write_text("\n".join(line for line in text.splitlines() if not line.startswith("HostKey")))
    boxes[0].configure(*settings)
    boxes[1].configure("AllowTcpForwarding yes")
    yield Rig(folder, *boxes, keys)
    for each in boxes:
        each.local.stop()


@dataclass
class Setup:
    """One configuration of the user's, in a folder of its own."""

    folder: Path
    settings: list[str] = field(default_factory=list)
    jump: list[str] = field(default_factory=list)  # settings of the jump host; empty without one
    files: dict[str, str] = field(default_factory=dict)

    def write(self) -> Path:
        self.folder.mkdir(parents=True)
        for name, content in self.files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(content)
        text = "Host box\n" + "".join(f"  {line}\n" for line in self.settings)
        if self.jump:
            text += "  ProxyJump hop\nHost hop\n" + "".join(f"  {line}\n" for line in self.jump)
        (self.folder / "config").write_text(text.replace("FOLDER", str(self.folder)))
        return self.folder / "config"

    def __str__(self) -> str:
        return "\n".join(
            [
                "",
                *self.settings,
                *(f"jump: {line}" for line in self.jump),
                *(f"{k}: {v}" for k, v in self.files.items()),
            ]
        )


def connection(box: Box) -> list[str]:
    return ["HostName 127.0.0.1", f"Port {box.port}", f"User {getpass.getuser()}", f"IdentityFile {box.local.key}"]


def random_setup(chance: random.Random, rig: Rig, folder: Path) -> Setup:
    """A configuration as people, their companies and strangers' advice make them."""
    setup = Setup(folder, connection(rig.box))
    alias = chance.choice([None, None, "alias", "another"])
    if alias:
        setup.settings.append(f"HostKeyAlias {alias}")
    setup.files["mine/with a space"] = rig.lines(chance, rig.box.port, alias)
    setup.files["more"] = rig.lines(chance, rig.box.port, alias)
    setup.files["global"] = rig.lines(chance, rig.box.port, alias)
    setup.settings.append('UserKnownHostsFile "FOLDER/mine/with a space" FOLDER/more')
    setup.settings.append(chance.choice(["GlobalKnownHostsFile FOLDER/global", "GlobalKnownHostsFile none"]))
    if strict := chance.choice(STRICT):
        setup.settings.append(f"StrictHostKeyChecking {strict}")
    if chance.random() < 0.15:
        setup.settings.append("BatchMode yes")
    if chance.random() < 0.25:
        setup.files["command"] = rig.lines(chance, rig.box.port, alias)
        setup.settings.append(
            chance.choice(
                ["KnownHostsCommand /bin/cat FOLDER/command", '  KnownHostsCommand /bin/sh -c "cat FOLDER/command"']
            )
        )
    if chance.random() < 0.25:
        kinds = chance.sample(
            ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "ssh-ed25519-cert-v01@openssh.com"], 2
        )
        setup.settings.append(f"HostKeyAlgorithms {','.join(kinds)}")
    if chance.random() < 0.15:
        setup.settings.append(f"RequiredRSASize {chance.choice([2048, 4096])}")
    if chance.random() < 0.2:
        revoked = rig.keys[chance.choice(["right", "wrong"])]
        setup.files["revoked"] = "".join(revoked[kind] + "\n" for kind in chance.sample(KINDS, 2))
        setup.settings.append(f"RevokedHostKeys FOLDER/{chance.choice(['revoked', 'revoked', 'absent'])}")
    if chance.random() < 0.2:
        setup.settings.append("CheckHostIP yes")
    if chance.random() < 0.2:
        strict = chance.choice(["yes", "accept-new"])
        setup.jump = [*connection(rig.jump), "UserKnownHostsFile FOLDER/jump", f"StrictHostKeyChecking {strict}"]
        key = chance.choice([" ".join(rig.jump.local.host_key), rig.keys["wrong"]["ed25519"]])
        setup.files["jump"] = chance.choice(["", f"[127.0.0.1]:{rig.jump.port} {key}\n"])
    return setup


def hashed(file: Path) -> None:
    """As HashKnownHosts leaves it; lines with patterns cannot be hashed and stay."""
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    file.with_name(file.name + ".old").unlink(missing_ok=True)


def accepted_by_ssh(setup: Setup, config: Path, folder: Path) -> bool:
    """The reference: a person's ``ssh``, who answers "yes" where it asks. It works on a copy of the files, which it may write to."""
    copy = folder / "copy"
    shutil.copytree(config.parent, copy)
    (copy / "config").write_text(config.read_text().replace(str(config.parent), str(copy)))
    yes = folder / "say-yes"
    yes.write_text("#!/bin/sh\necho yes\n")
    yes.chmod(0o755)
    done = subprocess.run(
        [SSH, "-F", str(copy / "config"), "box", "echo", "in"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        env={**os.environ, "SSH_ASKPASS": str(yes), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"},
    )
    return done.stdout == "in\n"


def accepted_by_gpurun() -> tuple[bool, str]:
    host = resolve("box")
    try:
        connected = open_connection(host, PendingConnection(host), lambda new, fingerprint: None)
    except HostError as error:
        return False, f"{type(error).__name__}: {error.message}"
    connected.close()
    return True, ""


def is_stricter_on_purpose(setup: Setup, why: str) -> bool:
    """Where gpurun refuses what ssh accepts: a changed key without checks, and a key that is revoked under any name."""
    return "revoke" in why or any(line.split()[-1] in ("no", "off") and "Strict" in line for line in setup.settings)


@trials("trust", quick=6, full=120)
def test_gpurun_accepts_no_host_that_ssh_refuses(
    chance: random.Random, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = random_setup(chance, rig, tmp_path / "user")
    config = setup.write()
    if chance.random() < 0.3:
        hashed(config.parent / "mine" / "with a space")
    shims = tmp_path / "shims"  # OpenSSH finds the user's configuration by the password database, not by $HOME
    shims.mkdir()
    (shims / "ssh").write_text(f'#!/bin/sh\n[ "$1" = -G ] && exec {SSH} -F {config} "$@"\nexec {SSH} "$@"\n')
    (shims / "ssh").chmod(0o755)
    expected = accepted_by_ssh(setup, config, tmp_path)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    before = {file: file.read_bytes() for file in config.parent.rglob("*") if file.is_file()}
    accepted, why = accepted_by_gpurun()
    assert {file: file.read_bytes() for file in before} == before, "a file of the user's was written to"
    if accepted:
        assert expected, f"gpurun accepted what ssh refuses:{setup}"
        _revoke_and_try_again(rig, config, setup)
    elif expected and not is_stricter_on_purpose(setup, why):
        pytest.fail(f"ssh accepts what gpurun refuses ({why}):{setup}")


def _revoke_and_try_again(rig: Rig, config: Path, setup: Setup) -> None:
    """A pin does not outweigh a revocation that comes later."""
    assert accepted_by_gpurun() == (True, ""), setup
    pins = known_hosts.pinned(places.known_hosts(), f"[127.0.0.1]:{rig.box.port}")
    assert len(pins) == 1
    with open(config.parent / "more", "a") as file:
        file.write(f"@revoked * {pins[0].type} {pins[0].blob}\n")
    host = resolve("box")
    with pytest.raises(HostKeyChanged, match="revoke"):
        open_connection(host, PendingConnection(host), lambda new, fingerprint: None)
