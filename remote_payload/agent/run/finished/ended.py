"""What the supervisor finds out at the end of a run: why it failed, and what that shows of its GPUs. It goes into the last events."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.box.processes import Process
from remote_payload.agent.run import causes, ending, events, state
from remote_payload.agent.run.causes import Explanation
from remote_payload.agent.run.owner import Owner
from remote_payload.agent.run.queue import health
from remote_payload.agent.run.queue.health import End
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.protocol import ExitRecord


def explain(run: RunPaths, record: ExitRecord, recorded: Owner) -> Optional[Explanation]:
    """Why the payload failed by itself or because of another box; None where it succeeded, or was ended by us."""
    if record.kind not in ("exit", "signal", "box") or _succeeded(record):
        return None
    full = state.disk_is_full(run.folder)
    return causes.explain(record, causes.tail(run.log), state.oom_kills_since(recorded.oom_kills), full)


def note_gpus(
    paths: BoxPaths, run: RunPaths, gpus: List[Gpu], record: ExitRecord, recorded: Owner, why: Optional[Explanation]
) -> None:
    """Writes down what the end shows of the run's GPUs, and tells in the run's events of those that are set aside now."""
    if not gpus or recorded.started_at is None:
        return
    cause, evidence = (why.cause, why.evidence or "") if why else (None, "")
    end = End(run.run_id, _succeeded(record), cause, record.at - recorded.started_at, evidence)
    try:
        for note in health.note_end(paths, gpus, end):
            events.append(run.events, "flag", name="gpu_set_aside", message=note.in_words())
    except OSError:  # a full disk: the next run that the GPU fails is noted
        pass


def append(run: RunPaths, record: ExitRecord, why: Optional[Explanation], survivors: Tuple[Process, ...]) -> None:
    """The event ``ended``."""
    event: Dict[str, Any] = {"exit": {"kind": record.kind, "number": record.number}}
    if why is not None:
        event.update(why._asdict())
    if survivors:
        event["survivors"] = ending.describe(survivors)
    events.append(run.events, "ended", **event)


def _succeeded(record: ExitRecord) -> bool:
    return (record.kind, record.number) == ("exit", 0)
