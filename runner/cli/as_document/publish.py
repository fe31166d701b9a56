"""Fills the document about a publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.cli.documents import publish as documents
    from runner.workflow.publish import Published


def publish_document(done: Published, *, dry_run: bool) -> documents.Publish:
    found = done.report
    return {
        "run_id": done.run.run_id if done.run else None,
        "folder": done.folder,
        "repository": found.repository,
        "page": done.page,
        "private": found.private,
        "dry_run": dry_run,
        "commit": found.commit,
        "files": [{"path": file.path, "size": file.size, "state": file.state} for file in found.files],
        "removed": list(found.removed),
        "left_out": [{"path": left.path, "reason": left.reason} for left in found.left_out],
        "base": found.base,
        "licence": found.licence,
        "remarks": list(found.remarks),
    }
