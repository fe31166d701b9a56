"""Fills the document of ``gpurun resume --all``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.cli.as_document.runs import run_document

if TYPE_CHECKING:
    from runner.cli.documents import recovery
    from runner.workflow.recovery.turns import Turn


def recovery_document(host: str, dry_run: bool, turns: Sequence[Turn]) -> recovery.ResumeAll:
    return {"host": host, "dry_run": dry_run, "runs": [_interrupted(turn) for turn in turns]}


def _interrupted(turn: Turn) -> recovery.Interrupted:
    new = turn.new if turn.started else None
    return {
        "run_id": turn.run_id,
        "was": turn.found.was,
        "what": turn.what,
        "checkpoint": turn.found.checkpoint,
        "successor": new.run_id if new else turn.successor,
        "why": turn.why,
        "hint": turn.hint,
        "new": run_document(new) if new else None,
    }
