"""Fills the document of runs that were followed to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.as_document.errors import error_part
from runner.cli.as_document.files import fetched_part
from runner.cli.as_document.models import model_part
from runner.cli.as_document.runs import run_document

if TYPE_CHECKING:
    from runner.cli.documents import follow as documents
    from runner.workflow.follow_up import FollowedRun


def followed_document(followed: FollowedRun) -> documents.FollowedRun:
    fetched, models, error = followed.fetched, followed.models, followed.error
    return {
        **run_document(followed.run),
        "fetched": {"run_id": followed.run.run_id, **fetched_part(fetched)} if fetched else None,
        "smoke_test": None if models is None else [model_part(model) for model in models],
        "error": error_part(error) if error else None,
    }
