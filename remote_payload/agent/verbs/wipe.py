"""Verb ``wipe``: removes the secrets of a run that is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_payload.agent.run import alive, secrets
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Wiped


def wipe(request: Request) -> Wiped:
    """Removes a run's secrets; ``{left: []}`` proves that none is left. Raises AgentError LaunchError while the run lasts."""
    run = request.run()
    if alive.of(run).anything:
        raise AgentError(
            "LaunchError",
            "run %s is still going and needs its secrets" % run.run_id,
            "Stop it first: gpurun stop %s" % run.run_id,
        )
    left = secrets.remove(run)
    secrets.forget(run)
    return {"left": left}
