"""Which runs the laptop tells the box it may delete: those that are home for sure, and those that were named."""

import time

import pytest

from runner import store
from runner.domain.progress import Silent
from runner.domain.run import Run, mint_id
from runner.workflow.clean import clean


class Asked:
    """A link that keeps what the agent was asked."""

    def __init__(self):
        self.agent, self.args = self, None

    def call(self, verb, args, progress):
        self.args = args
        return {"removed": [], "kept": []}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """One that was fetched while it trained, one of which ``done`` said that all is home."""
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    found = {}
    for name, facts in (("halfway", {"fetched_at": time.time()}), ("home", {"fetched_at": time.time(), "done": True})):
        found[name] = mint_id(name)
        store.create(Run(found[name], name, {}, "", "", "local", time.time(), **facts))
    return found


def asked(**options):
    link = Asked()
    clean(link, Silent(), dry_run=True, run_ids=["named"], everything=False, **options)
    return link.args


def test_a_run_that_was_fetched_while_it_trained_is_not_home(runs):
    assert asked()["fetched"] == [runs["home"]]


def test_with_an_experiment_what_it_keeps_stays_although_it_is_home(runs):
    assert asked(only_named=True)["fetched"] == []
    assert asked(only_named=True)["run_ids"] == ["named"]
