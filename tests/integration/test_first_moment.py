"""A program that ends right after its start: the answer to its launch tells of it. One that goes on is told as running."""

from __future__ import annotations

import pytest

from remote_payload.agent.verbs import launch
from remote_payload.agent.wire.request import Request
from tests.support.agent import run_id, status, until_finished

LONG = 60.0  # seconds: the answer comes with the end of the program, however slow the machine is


def start(paths, command, **args):
    run = run_id()
    asked = {"run_id": run, "job": {}, "code": {}, "command": command, "watch": True, **args}
    return run, launch.launch(Request(asked, paths))["status"]


@pytest.mark.parametrize(("code", "outcome"), [(0, "succeeded"), (3, "failed")])
def test_a_program_that_ends_at_once_is_over_in_the_answer(agent, paths, monkeypatch, code, outcome):
    monkeypatch.setattr(launch, "FIRST_MOMENT", LONG)
    _, told = start(paths, ["sh", "-c", f"echo 'No module named torch'; sleep 0.3; exit {code}"])
    assert (told["phase"], told["outcome"], told["exit"]["number"]) == ("finished", outcome, code)


def test_one_that_goes_on_is_told_as_running_after_a_moment(agent, paths):
    run, told = start(paths, ["sleep", "60"])
    assert told["phase"] == "running"
    agent.call("stop", {"run_id": run, "grace": 0})
    until_finished(agent, run)


def test_who_did_not_ask_for_it_does_not_wait(agent, paths, monkeypatch):
    monkeypatch.setattr(launch, "FIRST_MOMENT", LONG)
    run, told = start(paths, ["sleep", "60"], watch=False)
    assert told["phase"] == "running" == status(agent, run)["phase"]
    agent.call("stop", {"run_id": run, "grace": 0})
    until_finished(agent, run)
