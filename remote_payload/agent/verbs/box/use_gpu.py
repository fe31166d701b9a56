"""Verb ``use_gpu``: a GPU that was set aside is given to runs again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_payload.agent.run.queue import allotment, health
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import UsedAgain


def use_gpu(request: Request) -> UsedAgain:
    """``{was_set_aside}``, for the GPU of the number ``gpu``. The first run that waits looks at once."""
    was_set_aside = health.use_again(request.paths, request.fields().whole("gpu"))
    if was_set_aside:
        allotment.wake_next(request.paths)
    return {"was_set_aside": was_set_aside}
