"""``gpurun ssh`` and ``gpurun exec``: OpenSSH with gpurun's own configuration and pins, to a box or into a run's folder on it.

The box is asked first, by gpurun's own connection: it is the right one, its key is pinned, the run is there, and so is the agent that
starts the program.
"""

from __future__ import annotations

from collections.abc import Sequence

from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.transport import bundle
from runner.transport.bootstrap.command import beside_command
from runner.transport.openssh import session_argv
from runner.workflow.connect import connect, host_of, resolve_or_start_host
from runner.workflow.observing.status import NOT_THERE, not_there

NO_RUN = "-"


def ssh_to_run(run: Run, words: Sequence[str], report: Reporter, *, terminal: bool) -> list[str]:
    """The argv of an ``ssh`` that runs ``words`` in the run's folder with its variables; without words the user's shell there.

    Raises RunLost where the box does not have the run.
    """
    host = host_of(run)
    with connect(host, report) as link:
        if link.agent.status(run.run_id).cause == NOT_THERE:
            raise not_there(run)
        command = beside_command(link.paths, bundle.agent().sha256, run.run_id, words)
    return session_argv(host, command, terminal=terminal)


def ssh_to_host(typed: str, words: Sequence[str], report: Reporter, *, terminal: bool) -> list[str]:
    """The same in the home folder of a host, with the variables of the box alone; without words a login there."""
    host = resolve_or_start_host(typed)
    with connect(host, report) as link:
        command = beside_command(link.paths, bundle.agent().sha256, NO_RUN, words) if words else None
    return session_argv(host, command, terminal=terminal)
