"""A Python for the payload on the box, and the tools that a push needs there."""

from __future__ import annotations

from typing import Any

from runner.domain.box import Box
from runner.domain.errors import EnvironmentFailed
from runner.domain.progress import Reporter
from runner.transport.link import Link
from runner.workflow.plan import Plan


def install_tools(link: Link, plan: Plan, box: Box, report: Reporter) -> None:
    """rsync by apt-get where it lacks and may be installed; ``checks`` has refused the other cases."""
    if box.rsync or not plan.trees:
        return
    with report.stage("install rsync on the box") as stage:
        link.agent.call("install_tools", {"tools": ["rsync"]}, progress=lambda value: stage.update(note=_line(value)))


def provision(link: Link, plan: Plan, box: Box, report: Reporter) -> str:
    """The interpreter that the payload will run with: given, found, reused or built. Raises EnvironmentFailed."""
    wanted = plan.requirements
    ready = box.have.get("interpreter")
    if isinstance(ready, str) and ready.startswith("/") and wanted.interpreter is None:
        return ready
    with report.stage("environment") as stage:
        answer = link.agent.call(
            "provision",
            {
                "key": wanted.key,
                "python": wanted.python,
                "requirements": wanted.locked,
                "ranges": list(wanted.ranges),
                "interpreter": wanted.interpreter,
                "interpreters": list(link.host.interpreters),
            },
            progress=lambda value: stage.update(note=_line(value)),
        )
        stage.update(note=f"{answer.get('how')}: {answer.get('interpreter')}")
    interpreter = answer.get("interpreter")
    if not isinstance(interpreter, str) or not interpreter.startswith("/"):
        raise EnvironmentFailed("the box built an environment and did not say where")
    return interpreter


def _line(value: dict[str, Any]) -> str:
    return str(value.get("line") or "")
