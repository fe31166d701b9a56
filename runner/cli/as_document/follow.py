"""Fills the documents of runs that were followed or kept to their end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from runner.cli.as_document.errors import error_part
from runner.cli.as_document.files import fetched_part
from runner.cli.as_document.models import model_part
from runner.cli.as_document.runs import run_document

if TYPE_CHECKING:
    from runner.cli.documents import follow as documents
    from runner.workflow.follow_up import FollowedRun
    from runner.workflow.keeping.board import KeptRun


def followed_document(followed: FollowedRun) -> documents.FollowedRun:
    fetched, models, error = followed.fetched, followed.models, followed.error
    return {
        **run_document(followed.run),
        "fetched": {"run_id": followed.run.run_id, **fetched_part(fetched)} if fetched else None,
        "smoke_test": None if models is None else [model_part(model) for model in models],
        "error": error_part(error) if error else None,
    }


def keep_document(runs: Iterable[KeptRun]) -> documents.Keep:
    return {"runs": [_kept(each) for each in runs]}


def _kept(kept: KeptRun) -> documents.KeptRun:
    from runner.workflow.keep import error_about

    error = error_about(kept)
    return {
        **run_document(kept.run),
        "checkpoint": kept.home.name if kept.home else None,
        "goes_on_as": kept.goes_on_as,
        "new_files": kept.files,
        "new_bytes": kept.bytes,
        "error": error_part(error) if error else None,
    }
