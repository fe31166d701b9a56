"""Verb ``results``: what many runs have come to, in one answer: status, evaluations, the chosen model, checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional

from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run.alive import Box
from remote_payload.agent.run.checkpoints.listing import list_checkpoints
from remote_payload.agent.run.checkpoints.of_run import list_foreign
from remote_payload.agent.run.checkpoints.rule import is_foreign, read_rule
from remote_payload.agent.run.evaluations import last_of_each_name
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Checkpoint, Evaluated, Results, RunResults


def results(request: Request) -> Results:
    """``{runs: [{status, evaluations, best, final, checkpoints, bytes}]}`` of ``run_ids``, in their order; without them of every run.

    Raises AgentError for what is no run id.
    """
    asked = request.fields()
    named = [request.paths.run(run_id) for run_id in asked.run_ids("run_ids")]
    runs = named if "run_ids" in asked else runs_newest_first(request.paths)
    box = Box()
    return {"runs": [_results(run, box) for run in runs]}


def _results(run: RunPaths, box: Box) -> RunResults:
    status = status_of(run, box)
    listed = list_checkpoints(run.outputs)
    best = listed["best"]
    kept: List[Checkpoint] = listed["checkpoints"] + ([best] if best else [])
    if is_foreign(run):
        kept = list_foreign(run, read_rule(run), is_running=status["phase"] != "finished")[0] + kept
    final = best or (kept[-1] if kept else None)
    return {
        "status": status,
        "evaluations": last_of_each_name(run.events),
        "best": _evaluation(best),
        "final": final["size"] if final else None,
        "checkpoints": len(kept),
        "bytes": sum(each["size"] for each in kept),
    }


def _evaluation(best: Optional[Checkpoint]) -> Optional[Evaluated]:
    """The chosen model as the evaluation that its ``metrics.json`` tells."""
    return {"name": best["path"], "step": best["step"], "metrics": best["metrics"]} if best else None
