"""One line a run, from the local records alone: `gpurun list` asks nobody and loads little."""

from __future__ import annotations

import time
from typing import Any

from runner.domain.run import Run


def line_of(run: Run) -> dict[str, Any]:
    """What ``gpurun list`` shows of a run, as last seen."""
    status = run.status
    step = (status.get("progress") or {}).get("step") or {}
    done, total = step.get("step"), step.get("total")
    return {
        "run": run.run_id,
        "host": run.host,
        "status": describe(run),
        "step": f"{done}/{total}" if done is not None else None,
        "started": time.strftime("%m-%d %H:%M", time.localtime(run.created_at)),
        "cost": _cost(run),
        "seen_at": run.status_at,
        "fetched_into": run.fetched_into,
        "parent": run.parent,
        "experiment": run.experiment,
        "done": run.done,
    }


def describe(run: Run) -> str:
    """The status in a word or two: ``running``, ``succeeded``, ``failed (cuda_oom)``, ``not started``."""
    status = run.status
    if not run.launched:
        cause = (run.not_started or {}).get("cause")
        return f"not started ({cause})" if cause else "start not confirmed" if run.attempted else "not started"
    if not status:
        return "launched"
    said = status.get("outcome") or status.get("phase") or "unknown"
    cause = status.get("cause")
    return f"{said} ({cause})" if cause and said != "succeeded" else str(said)


def _cost(run: Run) -> str | None:
    price, status = run.job.get("price_per_hour"), run.status
    began = status.get("started_at")
    ended = status.get("ended_at") or run.status_at
    if not price or not isinstance(began, int | float) or not isinstance(ended, int | float):
        return None
    return f"{price * max(0.0, ended - began) / 3600:.2f}"
