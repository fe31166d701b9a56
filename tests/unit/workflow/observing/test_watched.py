"""A run that is watched: what its record says while its box cannot be asked, and when nothing more is to be heard of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.errors import ConnectFailed, HostKeyChanged, RunFailed
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.workflow.each_host import Place, place_of
from runner.workflow.watching.watch import Watched


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))


def a_run(host: str = "one", **fields: object) -> Run:
    run = Run(mint_id("x"), Job("x"), host, 0.0, launched=True, **fields)  # type: ignore[arg-type]
    store.create(run)
    return run


def test_a_run_that_was_resumed_elsewhere_is_watched_there() -> None:
    first = a_run()
    later = a_run("two", parent=first.run_id)
    watched = Watched(first)
    watched.lost(ConnectFailed("no answer", retryable=True))
    assert (watched.run.run_id, watched.trouble, watched.over) == (first.run_id, "no answer", False)
    store.update(store.load(first.run_id), went_on_as=later.run_id)
    watched.lost(ConnectFailed("no answer", retryable=True))
    assert watched.run.run_id == later.run_id and place_of(watched.run) == Place("two") and not watched.over


def test_a_run_is_watched_at_the_address_that_its_record_has_now() -> None:
    watched = Watched(a_run())
    store.update(store.load(watched.run.run_id), host="two", volume="/data")
    watched.lost(ConnectFailed("no answer", retryable=True))
    assert place_of(watched.run) == Place("two", "/data")


def test_an_error_that_another_try_does_not_mend_ends_the_watch_of_a_run() -> None:
    watched, error = Watched(a_run()), HostKeyChanged("another key")
    watched.lost(error)
    assert watched.over and watched.failure is error


def test_a_run_whose_end_is_here_is_asked_no_more_and_has_failed_as_it_did() -> None:
    run = a_run()
    store.update(run, status=Status(run.run_id, "finished", "failed", "exit 3"))
    (places.run_folder(run.run_id) / "log").write_bytes(b"one\ntwo\n")
    watched = Watched(run)
    assert not watched.over  # not all of its events are here
    watched.lost(ConnectFailed("no answer", retryable=True))
    assert watched.over and isinstance(watched.failure, RunFailed)
    ended = json.dumps({"t": 1e9, "type": "ended", "cause": "exit 3"})
    (places.run_folder(run.run_id) / "events.jsonl").write_text(ended + "\n")
    watched = Watched(run)
    assert watched.over and isinstance(watched.failure, RunFailed) and watched.log == ["one", "two"]
    later = a_run("two", parent=run.run_id)
    store.update(run, went_on_as=later.run_id)
    watched = Watched(run)
    assert watched.run.run_id == later.run_id and not watched.over and watched.failure is None
