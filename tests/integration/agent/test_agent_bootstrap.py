"""The agent started the way sshd starts it: by the user's login shell, from one command line."""

import json
import os
import shutil
import subprocess

import pytest

from remote_payload.agent.wire import protocol
from runner.domain.errors import BoxNotReady
from runner.transport import bundle
from runner.transport.bootstrap.command import PLACES, SHELL, new_nonce, opening, start_command, upload
from runner.transport.bootstrap.handshake import Handshake, Need, Ready
from tests.support.agent import ProcessPipe

SHELLS = ("bash", "dash", "zsh", "fish", "csh", "tcsh", "ksh", "sh")
UNKNOWN = protocol.encode_json(protocol.REQUEST, 1, {"verb": "no-such-verb", "args": {}})


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def start(home, shell="sh", volume=None, nonce=None, early=b"", path=None, in_command=False):
    nonce = nonce or new_nonce()
    first_input = opening(bundle.agent().sha256, early)
    process = subprocess.Popen(
        [shutil.which(shell), "-c", start_command(nonce, volume, first_input if in_command else b"")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"HOME": str(home), "PATH": path or os.environ["PATH"], "LANG": "C.UTF-8"},
    )
    pipe = ProcessPipe(process, silence=20)
    if not in_command:
        pipe.write(first_input)
    return process, pipe, Handshake(nonce)


def next_answer(pipe, handshake):
    while True:
        data = pipe.read(65536)
        if not data:
            raise handshake.ended()
        answer = handshake.feed(data)
        if answer is not None:
            return answer


def first_error(pipe, rest):
    unread = [rest]

    def read(count):
        if unread[0]:
            data, unread[0] = unread[0][:count], unread[0][count:]
            return data
        return pipe.read(count)

    while True:
        frame = protocol.read_frame(read)
        if frame.type == protocol.ERROR:
            return json.loads(frame.payload)


def finish(process):
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_cold_and_warm_start_from_every_login_shell(home, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine")
    process, pipe, handshake = start(home, shell, early=UNKNOWN)
    assert next_answer(pipe, handshake) == Need(bundle.agent().sha256)
    pipe.write(upload(bundle.agent()))
    ready = next_answer(pipe, handshake)
    assert ready[:2] == (protocol.VERSION, str(home / ".gpurun-box"))
    assert "no-such-verb" in first_error(pipe, ready.rest)["message"]  # sent before the agent was there, not lost
    finish(process)

    for in_command in (False, True):
        process, pipe, handshake = start(home, shell, early=UNKNOWN, in_command=in_command)
        ready = next_answer(pipe, handshake)
        assert isinstance(ready, Ready)
        assert "no-such-verb" in first_error(pipe, ready.rest)["message"]
        finish(process)
    assert agents(home) == [bundle.agent().sha256, bundle.agent().sha256 + ".pyz"]
    assert (home / ".gpurun-box").stat().st_mode & 0o777 == 0o700


def agents(home):
    return sorted(path.name for path in (home / ".gpurun-box" / "agent").iterdir())


def test_the_agent_is_unpacked_once_so_that_its_bytecode_is_kept(home):
    process, pipe, handshake = start(home)
    next_answer(pipe, handshake)
    pipe.write(upload(bundle.agent()))
    next_answer(pipe, handshake)
    finish(process)
    unpacked = home / ".gpurun-box" / "agent" / bundle.agent().sha256 / "remote_payload" / "agent"
    assert list(unpacked.glob("__pycache__/serve.*.pyc"))
    shutil.rmtree(unpacked.parent.parent)
    process, pipe, handshake = start(home, in_command=True)
    assert isinstance(next_answer(pipe, handshake), Ready)  # from the zipapp that is there
    finish(process)
    assert unpacked.exists()


def test_where_it_cannot_be_unpacked_it_runs_from_the_zipapp(home):
    folder = home / ".gpurun-box" / "agent"
    folder.mkdir(parents=True)
    (folder / bundle.agent().sha256).write_text("in the way")
    process, pipe, handshake = start(home, early=UNKNOWN)
    next_answer(pipe, handshake)
    pipe.write(upload(bundle.agent()))
    assert "no-such-verb" in first_error(pipe, next_answer(pipe, handshake).rest)["message"]
    finish(process)
    assert agents(home) == [bundle.agent().sha256, bundle.agent().sha256 + ".pyz"]


def test_an_agent_damaged_on_the_disk_is_sent_again(home):
    folder = home / ".gpurun-box" / "agent"
    folder.mkdir(parents=True)
    there = folder / (bundle.agent().sha256 + ".pyz")
    there.write_bytes(bundle.agent().data[:-1] + b"x")
    process, pipe, handshake = start(home)
    assert isinstance(next_answer(pipe, handshake), Need)
    pipe.write(upload(bundle.agent()))
    assert isinstance(next_answer(pipe, handshake), Ready)
    finish(process)
    assert there.read_bytes() == bundle.agent().data


def test_an_upload_cut_half_way_leaves_no_agent_under_its_name(home):
    process, pipe, handshake = start(home)
    next_answer(pipe, handshake)
    pipe.write(upload(bundle.agent())[:-5000])
    process.stdin.close()
    process.wait(20)
    process.stdout.close()
    assert list((home / ".gpurun-box" / "agent").iterdir()) == []


def test_an_upload_with_a_flipped_bit_is_refused(home):
    process, pipe, handshake = start(home)
    next_answer(pipe, handshake)
    data = bytearray(upload(bundle.agent()))
    data[1000] ^= 1
    pipe.write(bytes(data))
    with pytest.raises(Exception, match="damaged"):
        next_answer(pipe, handshake)
    process.wait(20)
    process.stdin.close()
    process.stdout.close()
    assert list((home / ".gpurun-box" / "agent").iterdir()) == []


def test_a_volume_holds_everything_when_one_is_named(home, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    process, pipe, handshake = start(home, volume=str(volume))
    next_answer(pipe, handshake)
    pipe.write(upload(bundle.agent()))
    assert next_answer(pipe, handshake).root == str(volume / ".gpurun-box")
    finish(process)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("volume", ["/no/such/volume", "/proc"])
def test_a_volume_that_cannot_be_used_is_named(home, volume):
    process, pipe, handshake = start(home, volume=volume)
    with pytest.raises(Exception, match=volume):
        next_answer(pipe, handshake)
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def test_a_box_without_python_says_so():
    script = SHELL.replace(PLACES, "no-such-python /no/such/python")
    told = subprocess.run(["/bin/sh", "-c", script, "gpurun", "0" * 32, "-", "", ""], capture_output=True)
    assert told.returncode == 127
    with pytest.raises(BoxNotReady, match="no Python"):
        Handshake("0" * 32).feed(told.stdout)


def test_a_python_that_is_too_old_or_broken_is_passed_over(home, tmp_path):
    shims = tmp_path / "shims"
    shims.mkdir()
    for name, code in (("python3", 97), ("python", 1)):
        (shims / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (shims / name).chmod(0o755)
    process, pipe, handshake = start(home, path=f"{shims}:{os.environ['PATH']}")
    assert isinstance(next_answer(pipe, handshake), Need)
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def test_a_bashrc_that_prints_does_not_matter(home):
    (home / "noise").write_text('echo -n "Welcome to cheap-gpus \x1b]0;t\x07"; seq 20000\n')
    nonce = new_nonce()
    process = subprocess.Popen(
        ["bash", "-c", start_command(nonce)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "BASH_ENV": str(home / "noise")},
    )
    pipe, handshake = ProcessPipe(process, silence=20), Handshake(nonce)
    pipe.write(opening(bundle.agent().sha256))
    assert isinstance(next_answer(pipe, handshake), Need)
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_home_folder_named_after_a_mail_address_is_a_home_folder(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine")
    home = tmp_path / "ada+test@example.org"
    home.mkdir()
    process, pipe, handshake = start(home, shell)
    next_answer(pipe, handshake)
    pipe.write(upload(bundle.agent()))
    assert next_answer(pipe, handshake).root == str(home / ".gpurun-box")
    finish(process)


@pytest.mark.parametrize("name", ["ada lovelace", "höme", "a;b", "a$b", "a'b", "a\nb"])
def test_a_home_folder_that_a_shell_could_misread_is_named_and_a_volume_suggested(tmp_path, name):
    home = tmp_path / name
    home.mkdir()
    process, pipe, handshake = start(home)
    with pytest.raises(BoxNotReady, match="home folder on the box is called") as refused:
        next_answer(pipe, handshake)
    assert ascii(str(home)) in refused.value.message and "--volume" in refused.value.hint
    process.stdin.close()
    process.wait(20)
    process.stdout.close()
    assert list(home.iterdir()) == []
