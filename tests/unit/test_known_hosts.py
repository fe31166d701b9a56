"""runner/transport/known_hosts.py: pins, in OpenSSH's own format."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runner.domain.host import Host
from runner.transport import known_hosts
from runner.transport.known_hosts import Key

HOST = Host(typed="h", hostname="1.2.3.4", port=41022, user="root")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    folder = tmp_path_factory.mktemp("key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    words = (folder / "key.pub").read_text().split()
    return Key(words[0], words[1])


def test_a_pin_is_found_under_its_name_only(tmp_path: Path, key: Key) -> None:
    file = tmp_path / "known_hosts"
    known_hosts.pin(file, HOST.known_as, key)
    assert known_hosts.pinned(file, "[1.2.3.4]:41022") == [key]
    assert known_hosts.pinned(file, "1.2.3.4") == []


def test_openssh_reads_the_same_pin(tmp_path: Path, key: Key) -> None:
    file = tmp_path / "known_hosts"
    known_hosts.pin(file, HOST.known_as, key)
    found = subprocess.run(["ssh-keygen", "-F", HOST.known_as, "-f", file], capture_output=True, text=True)
    assert key.blob in found.stdout


def test_forgetting_removes_that_host_and_no_other(tmp_path: Path, key: Key) -> None:
    file = tmp_path / "known_hosts"
    known_hosts.pin(file, "a", key)
    known_hosts.pin(file, "b", key)
    assert known_hosts.forget(file, "a") == 1
    assert known_hosts.forget(file, "a") == 0
    assert known_hosts.pinned(file, "b") == [key]


def test_the_fingerprint_is_what_ssh_keygen_prints(tmp_path: Path, key: Key) -> None:
    (tmp_path / "key.pub").write_text(f"{key.type} {key.blob}\n")
    printed = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True).stdout
    assert key.fingerprint in printed


def test_hashed_and_bracketed_entries_of_the_user_are_found(tmp_path: Path, key: Key) -> None:
    file = tmp_path / "theirs"
    file.write_text(f"[1.2.3.4]:41022 {key.type} {key.blob}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", file], check=True, capture_output=True)
    assert "1.2.3.4" not in file.read_text()
    assert known_hosts.known_to_user(replace(HOST, user_known_hosts=(str(file), "/nonexistent"))).keys == [key]
