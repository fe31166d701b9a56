"""The document of a command that ended with an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.cli.documents import errors as documents
    from runner.domain.errors import GpurunError


def failure_document(error: GpurunError) -> documents.Failure:
    """The document of a command that ended with an error."""
    return {"error": error_part(error)}


def error_part(error: GpurunError) -> documents.Error:
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "meaning": error.meaning,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
