"""Removes the secrets of a run that is over."""

from typing import Any, Dict

from remote_payload.agent.run import alive, secrets
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.request import Request


def wipe(request: Request) -> Dict[str, Any]:
    """Verb: removes a run's secrets and looks again: ``{left: []}`` is the proof. Refused while the run lasts."""
    run = request.run()
    if alive.of(run).anything:
        raise AgentError(
            "LaunchError",
            "run %s is still going and needs its secrets" % run.run_id,
            "Stop it first: gpurun stop %s" % run.run_id,
        )
    left = secrets.remove(run.run_id)
    secrets.forget(run)
    return {"left": left}
