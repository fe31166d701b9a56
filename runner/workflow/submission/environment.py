"""Prepares the box for the run: a Python for the payload, and the tools that a push needs there."""

from __future__ import annotations

from runner.domain.answers.box import Box
from runner.domain.errors import EnvironmentFailed
from runner.domain.progress import Reporter
from runner.transport.link import Link
from runner.workflow.submission.plan import Plan


def install_tools(link: Link, plan: Plan, box: Box, report: Reporter) -> None:
    """Installs rsync with apt-get where it is missing; ``checks`` has refused a box where that is not allowed."""
    if box.rsync or not plan.trees:
        return
    with report.stage("install rsync on the box") as stage:
        link.agent.install_tools(["rsync"], lambda line: stage.update(note=line))


def provision(link: Link, plan: Plan, box: Box, report: Reporter) -> str:
    """The interpreter that the payload will run with: given, found, reused or built. Raises EnvironmentFailed."""
    wanted = plan.requirements
    if box.have.interpreter is not None and wanted.interpreter is None:
        return box.have.interpreter
    with report.stage("environment") as stage:
        found = link.agent.provision(
            key=wanted.key,
            python=wanted.python,
            requirements=wanted.locked,
            ranges=wanted.ranges,
            interpreter=wanted.interpreter,
            interpreters=link.host.interpreters,
            tell=lambda line: stage.update(note=line),
        )
        stage.update(note=f"{found.how}: {found.interpreter}")
    if found.how == "given" and found.missing:
        raise EnvironmentFailed(
            f"{found.interpreter} lacks {', '.join(found.missing)}",
            meaning="The job names this interpreter, so nothing is installed into it. Nothing was started.",
            hint="Install them there, or leave out environment.interpreter: gpurun then builds an environment that has them.",
        )
    return found.interpreter
