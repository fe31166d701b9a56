"""Both SSH stacks against a real sshd: pins, changed keys, copies, resumption, hard links."""

import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner.domain import places
from runner.domain.errors import AuthFailed, ConnectFailed, DiskTrouble, HostKeyChanged
from runner.domain.host import Host, Trust
from runner.local_box import LocalBox, embedded
from runner.transport import known_hosts
from runner.transport.link import open_link
from runner.transport.transfer import rsync
from tests.support.hostile_names import HOSTILE_NAMES


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBox]:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    box = embedded()
    yield box
    box.stop()


@pytest.fixture
def host(box: LocalBox) -> Host:
    host = box.ensure()
    known_hosts.pin(places.known_hosts(), host.known_as, known_hosts.Key(*box.host_key))
    return host


def refuse(host: Host, fingerprint: str) -> None:
    raise AssertionError(f"{host} was taken for a new one: {fingerprint}")


def test_the_agent_is_sent_once_and_started_from_then_on(host: Host, box: LocalBox) -> None:
    for _ in range(2):
        with open_link(host, refuse) as link:
            assert link.paths.root == str(box.home / ".gpurun-box")
    assert len(list((box.home / ".gpurun-box" / "agent").glob("*.pyz"))) == 1


def test_first_contact_shows_the_fingerprint_and_pins_it(host: Host) -> None:
    known_hosts.forget(places.known_hosts(), host.known_as)
    shown: list[str] = []
    with open_link(host, lambda new, fingerprint: shown.append(fingerprint)):
        pass
    with open_link(host, refuse):
        pass
    assert len(shown) == 1 and "SHA256:" in shown[0]


def another_key(folder: Path, kind: str) -> known_hosts.Key:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", folder / kind], check=True)
    words = (folder / f"{kind}.pub").read_text().split()
    return known_hosts.Key(words[0], words[1])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_another_host_key_or_key_type_stops_both_stacks_before_any_command(
    host: Host, box: LocalBox, tmp_path: Path, kind: str
) -> None:
    known_hosts.forget(places.known_hosts(), host.known_as)
    known_hosts.pin(places.known_hosts(), host.known_as, another_key(tmp_path, kind))
    with pytest.raises(HostKeyChanged) as caught, open_link(host, refuse):
        pass
    assert "hosts forget" in caught.value.hint
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("x")
    with pytest.raises(HostKeyChanged):
        rsync.push(host, tmp_path / "source", ["file"], str(box.home / "target"))
    assert not (box.home / ".gpurun-box").exists() and not (box.home / "target").exists()


def test_a_key_that_the_user_knows_differently_is_a_changed_key(host: Host, tmp_path: Path) -> None:
    known_hosts.forget(places.known_hosts(), host.known_as)
    theirs = another_key(tmp_path, "ed25519")
    (tmp_path / "theirs").write_text(f"{host.known_as} {theirs.type} {theirs.blob}\n")
    with (
        pytest.raises(HostKeyChanged, match="your known_hosts"),
        open_link(replace(host, trust=Trust(settings=(("UserKnownHostsFile", str(tmp_path / "theirs")),))), refuse),
    ):
        pass
    assert known_hosts.pinned(places.known_hosts(), host.known_as) == []


def test_a_refused_key_names_what_was_tried(host: Host, tmp_path: Path) -> None:
    another_key(tmp_path, "ed25519")
    stranger = replace(host, identities=(str(tmp_path / "ed25519"),))
    with pytest.raises(AuthFailed) as caught, open_link(stranger, refuse):
        pass
    assert str(tmp_path / "ed25519") in caught.value.message


def test_nothing_listening_is_said_at_once(host: Host, box: LocalBox) -> None:
    box.stop()
    with pytest.raises(ConnectFailed, match="refused"), open_link(replace(host, port=1), refuse):
        pass


def test_hostile_names_arrive_as_they_are(host: Host, box: LocalBox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    names = [os.fsdecode(name) for name in HOSTILE_NAMES]
    for name in names:
        (source / name).write_bytes(os.fsencode(name))
    rsync.push(host, source, names, str(box.home / "target"))
    assert sorted(os.listdir(box.home / "target")) == sorted(names)


def test_unchanged_files_become_hard_links_of_the_earlier_snapshot(host: Host, box: LocalBox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "same").write_text("same")
    (source / "other").write_text("one")
    rsync.push(host, source, ["same", "other"], str(box.home / "first"))
    (source / "other").write_text("two!")
    rsync.push(host, source, ["same", "other"], str(box.home / "second"), link_dest=[str(box.home / "first")])
    assert os.path.samefile(box.home / "first" / "same", box.home / "second" / "same")
    assert (box.home / "first" / "other").read_text() == "one"
    assert (box.home / "second" / "other").read_text() == "two!"


def test_links_and_what_was_not_asked_for_are_not_pulled(host: Host, box: LocalBox, tmp_path: Path) -> None:
    outputs = box.home / "outputs"
    (outputs / "models").mkdir(parents=True)
    (outputs / "models" / "good").write_text("good")
    (outputs / "models" / "link").symlink_to("/etc/passwd")
    (outputs / "unasked").write_text("x")
    staging = tmp_path / "staging" / "outputs"
    rsync.pull(host, str(outputs), ["models/good", "models/link"], staging)
    assert [path.name for path in staging.rglob("*")] == ["models", "good"]


def test_a_full_disk_here_at_first_contact_is_no_unreachable_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    known_hosts.forget(places.known_hosts(), host.known_as)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    connecting = open_link(host, lambda new, fingerprint: None)
    with pytest.raises(DiskTrouble, match=r"the disk of this machine is full: .*known_hosts"):
        connecting.__enter__()
