"""The agent as it travels, on the oldest and newest Pythons that this machine has."""

import shutil
import sys
from pathlib import Path

import pytest

from runner.transport import bundle
from tests.support.agent import launch, log_of, run_id, running_agent, status


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
