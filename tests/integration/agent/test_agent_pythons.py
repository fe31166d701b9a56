"""The agent as it travels, on the oldest and newest Pythons that this machine has."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.transport import bundle
from runner.transport.bootstrap.command import new_nonce, opening, start_command, upload
from runner.transport.bootstrap.handshake import Handshake, Need, Ready
from tests.support.agent import ProcessPipe, launch, log_of, run_id, running_agent, status


def python(version):
    """Where that version lies: where pyenv keeps it (its shims in PATH need not work), or in PATH."""
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    return str(kept[-1]) if kept else shutil.which(f"python{version}")


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13"])
def test_the_zipapp_serves_every_verb_of_a_run_on_this_python(home, tmp_path, version):
    interpreter = python(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on this machine")
    zipapp = tmp_path / "agent.pyz"
    zipapp.write_bytes(bundle.agent().data)
    run = run_id()
    with running_agent(home, [interpreter, "-I", "-S", str(zipapp)]) as agent:
        assert agent.call("probe", {})["python"].startswith(version)
        launch(
            agent,
            [sys.executable, "-c", "print('hello'); raise SystemExit(4)"],
            run,
            secrets={"HF_TOKEN": "hf_abcdefgh"},
        )
        assert log_of(agent, run) == b"hello\n"
        assert status(agent, run)["exit"]["number"] == 4
        going = launch(agent, ["sleep", "60"])["status"]["run_id"]
        assert agent.call("stop", {"run_id": going, "grace": 1})["survivors"] == []
        assert agent.call("manifest", {"run_id": run})["complete"] is True
        assert agent.call("wipe", {"run_id": run}) == {"left": []}
        agent.call("stale", {})
        agent.call("clean", {"dry_run": True})


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13"])
def test_the_program_in_the_command_line_becomes_the_agent_on_this_python(home, tmp_path, version):
    interpreter = python(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on this machine")
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {interpreter} "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    nonce = new_nonce()
    process = subprocess.Popen(
        ["/bin/sh", "-c", start_command(nonce)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"HOME": str(home), "PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    pipe, handshake = ProcessPipe(process, silence=20), Handshake(nonce)
    pipe.write(opening(bundle.agent().sha256))
    assert handshake.feed(pipe.read(65536)) == Need(bundle.agent().sha256)
    pipe.write(upload(bundle.agent()))
    assert isinstance(handshake.feed(pipe.read(65536)), Ready)
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()
    (bytecode,) = home.glob(".gpurun-box/agent/*/remote_payload/agent/__pycache__/serve.*.pyc")
    assert f"cpython-{version.replace('.', '')}" in bytecode.name
