"""Fills the documents about one run and several, from local records and from what a box reports."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.workflow.observing.listing import cost, elapsed

if TYPE_CHECKING:
    from runner.cli.documents import runs as documents
    from runner.domain.answers import verbs
    from runner.domain.answers.status import Status
    from runner.domain.run import Run
    from runner.workflow.observing.status import OnHost, Seen
    from runner.workflow.stop import Stopped


def run_document(run: Run) -> documents.Run:
    """A run from its local record, with the status as the box reported it last. Nobody is asked."""
    why = run.not_started
    return {
        "run_id": run.run_id,
        "job_name": run.job.name,
        "host": run.host,
        "address": run.address or None,
        "other_hosts": [other.host for other in run.others],
        "created_at": run.created_at,
        "attempted": run.attempted,
        "launched": run.launched,
        "not_started": {"cause": why.cause, "message": why.message, "hint": why.hint} if why else None,
        "parent": run.parent,
        "went_on_as": run.went_on_as,
        "experiment": run.experiment,
        "submission": run.submission,
        "engine": run.engine,
        "status": _status(run.status) if run.status else None,
        "seen_at": run.status_at,
        "elapsed_seconds": elapsed(run.status),
        "cost": cost(run),
        "fetched_into": run.fetched_into,
        "done": run.done,
    }


def _status(status: Status) -> documents.Status:
    ended = status.exit
    return {
        "run_id": status.run_id,
        "phase": status.phase,
        "outcome": status.outcome,
        "cause": status.cause,
        "exit": {"kind": ended.kind, "number": ended.number, "at": ended.at} if ended else None,
        "orphaned": status.orphaned,
        "stalled": status.stalled,
        "pid": status.pid,
        "gpus": list(status.gpus),
        "started_at": status.started_at,
        "ended_at": status.ended_at,
        "now": status.now,
        "progress": {**status.progress},
        "log_size": status.log_size,
        "generation": status.generation,
        "evidence": status.evidence,
        "advice": status.advice,
    }


def run_now_document(seen: Seen) -> documents.RunNow:
    return {
        **run_document(seen.run),
        "unreachable": seen.unreachable,
        "eta_seconds": seen.eta,
        "cost_at_end": seen.cost_at_end,
    }


def list_of_host_document(host: str, found: OnHost) -> documents.ListOfHost:
    """The runs on a box with their statuses of this moment. What only the record knows is None for runs of other machines."""
    now = time.time()
    aside: list[documents.GpuSetAside] = [
        {"gpu": each.gpu, "runs": list(each.runs), "at": each.at, "evidence": each.evidence} for each in found.set_aside
    ]
    return {
        "host": host,
        "runs": [_on_host(host, status, run, now) for status, run in found.runs],
        "set_aside": aside,
    }


def _on_host(host: str, status: Status, run: Run | None, now: float) -> documents.Run:
    if run is not None:
        return run_document(replace(run, status=status, status_at=now))
    return {
        "run_id": status.run_id,
        "job_name": None,
        "host": host,
        "address": None,
        "other_hosts": [],
        "created_at": None,
        "attempted": True,
        "launched": True,
        "not_started": None,
        "parent": None,
        "went_on_as": None,
        "experiment": None,
        "submission": None,
        "engine": None,
        "status": _status(status),
        "seen_at": now,
        "elapsed_seconds": elapsed(status),
        "cost": None,
        "fetched_into": None,
        "done": False,
    }


def stop_document(stopped: Stopped) -> documents.Stop:
    return {**run_document(stopped.run), "device_holders": [_process(each) for each in stopped.device_holders]}


def _process(process: verbs.Process) -> documents.Process:
    return {"pid": process.pid, "command": process.command, "state": process.state, "gpus": list(process.gpus)}
