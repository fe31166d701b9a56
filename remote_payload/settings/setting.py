"""How a setting is declared.

``kind="model"`` (a model of the hub or a folder of the job), ``kind="data"`` (a path of the job's data) and ``kind="adapter"`` (the same,
or ``run:ID``) are checked on the laptop before anything is sent, and the hub's models for access.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, description: str, **checks: Any) -> Any:
    """A documented setting; ``checks`` are pydantic's names (gt, ge, lt, le), and ``unique`` for a list without repetitions."""
    metadata = {"description": description, **checks}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def required(description: str, **checks: Any) -> Any:
    """A setting without a default."""
    return field(metadata={"description": description, **checks})


def group(kind: Any, description: str) -> Any:
    """Settings that belong together, as a dataclass of their own; left out, each of them has its default."""
    return field(default_factory=kind, metadata={"description": description})
