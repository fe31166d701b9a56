"""Fills the document about a publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.cli.documents import publish as documents
    from runner.workflow.publish import Published


def publish_document(done: Published, *, dry_run: bool) -> documents.Publish:
    found = done.publication
    return {
        "run_id": done.run.run_id if done.run else None,
        "folder": str(found.wish.folder),
        "repository": found.wish.repository,
        "page": done.page,
        "private": found.private,
        "dry_run": dry_run,
        "commit": done.commit,
        "files": [
            {"path": file.path, "size": file.size, "state": found.comparison.state(file.path)}
            for file in found.contents.files
        ],
        "removed": list(found.comparison.stale),
        "left_out": [{"path": left.path, "reason": left.reason} for left in found.contents.left_out],
        "base": found.base.name if found.base else None,
        "licence": found.licence,
        "remarks": list(found.remarks),
    }
