"""What the runs of this box are doing."""

from typing import Any, Dict

from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run.alive import Box
from remote_payload.agent.run.state import status_of
from remote_payload.agent.wire.paths import check_run_id
from remote_payload.agent.wire.request import Request


def status(request: Request) -> Dict[str, Any]:
    """Verb: ``{runs: [status]}`` of ``run_ids``, or of every run on the box, newest first."""
    run_ids = request.args.get("run_ids")
    if run_ids is None:
        run_ids = [run.run_id for run in runs_newest_first(request.paths)]
    box = Box()
    return {"runs": [status_of(request.paths.run(check_run_id(run_id)), box) for run_id in run_ids]}
