"""Fills the documents about files and checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from runner.cli.as_document.runs import run_document

if TYPE_CHECKING:
    from runner.cli.documents import files as documents
    from runner.domain.answers import manifest
    from runner.domain.run import Run
    from runner.workflow.checkpoints import Checkpoint, Checkpoints
    from runner.workflow.destroying.destroy import Gone
    from runner.workflow.done import Verdict
    from runner.workflow.fetch import Fetched


def fetch_document(run: Run, fetched: Fetched) -> documents.Fetch:
    return {**run_document(run), **fetched_part(fetched)}


def fetched_part(fetched: Fetched) -> documents.Fetched:
    return {
        "into": str(fetched.into),
        "complete": fetched.complete,
        "new": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in fetched.new],
        "kept": fetched.kept,
        "bytes": fetched.bytes,
        "left_out": _left_out(fetched.left_out),
        "report": str(fetched.page) if fetched.page else None,
    }


def _left_out(left_out: Iterable[manifest.LeftOut]) -> list[documents.LeftOut]:
    return [{"path": each.path, "why": each.why} for each in left_out]


def done_document(run: Run, verdict: Verdict, gone: Gone | None) -> documents.Done:
    return {
        **run_document(run),
        "safe_to_destroy": verdict.safe,
        "reasons": verdict.reasons,
        "files": verdict.files,
        "left_out": _left_out(verdict.left_out),
        "home": sorted(verdict.fetched),
        "given_up": list(verdict.given_up),
        "destroyed": None if gone is None else "gone" if gone.confirmed else "silent",
    }


def checkpoints_document(run: Run, found: Checkpoints) -> documents.Checkpoints:
    return {
        **run_document(run),
        "checkpoints": [_checkpoint(each) for each in found.complete],
        "unfinished": [
            {"path": each.path, "step": each.step, "size": each.size, "age": each.age, "why": each.why}
            for each in found.unfinished
        ],
    }


def _checkpoint(checkpoint: Checkpoint) -> documents.Checkpoint:
    return {
        "name": checkpoint.name,
        "path": checkpoint.path,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "size": checkpoint.size,
        "age": checkpoint.age,
        "resumable": checkpoint.resumable,
        "here": checkpoint.here,
        "on_box": checkpoint.on_box,
    }
