"""runner/transport/known_hosts.py: pins, in OpenSSH's own format."""

import subprocess
from pathlib import Path

import pytest

from runner.domain.errors import HostError
from runner.domain.host import Host, Trust
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


@pytest.mark.parametrize("form", ["@revoked line", "list of keys", "key revocation list"])
def test_a_key_that_the_user_revoked_is_found_in_every_form(tmp_path: Path, key: Key, form: str) -> None:
    (tmp_path / "key.pub").write_text(f"{key.type} {key.blob} comment\n")
    file = tmp_path / "revoked"
    if form == "@revoked line":
        file.write_text(f"# mine\n@revoked * {key.type} {key.blob}\n")
        trust = Trust(known_hosts=(str(tmp_path / "absent"), str(file)))
    elif form == "list of keys":
        file.write_text(f"{key.type} {key.blob}\n")
        trust = Trust(revoked=str(file))
    else:
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", file, tmp_path / "key.pub"], check=True)
        trust = Trust(revoked=str(file))
    assert known_hosts.is_revoked(trust, key)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    words = (tmp_path / "other.pub").read_text().split()
    assert not known_hosts.is_revoked(trust, Key(words[0], words[1]))


def test_a_list_of_revoked_keys_that_cannot_be_read_refuses_every_host(tmp_path: Path, key: Key) -> None:
    with pytest.raises(HostError, match="absent"):
        known_hosts.is_revoked(Trust(revoked=str(tmp_path / "absent")), key)
