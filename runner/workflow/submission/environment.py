"""Prepares the box for the run: a Python for the payload, and the tools that a push needs there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from runner.domain.answers.box import Box
from runner.domain.errors import EnvironmentFailed
from runner.domain.progress import Reporter
from runner.transport.link import Link
from runner.workflow.submission.plan import Plan, Requirements


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
    return build(link, wanted, plan.job.resources.gpus, report)


def build(link: Link, wanted: Requirements, gpus: int | str, report: Reporter, *, prove: bool = False) -> str:
    """An interpreter with these packages; with ``prove`` an environment that lost files is built anew. Raises EnvironmentFailed."""
    with report.stage("environment") as stage:
        found = link.agent.provision(
            key=wanted.key,
            python=wanted.python,
            requirements=wanted.locked,
            ranges=wanted.ranges,
            interpreter=wanted.interpreter,
            interpreters=link.host.interpreters,
            gpus=gpus,
            prove=prove,
            tell=lambda line: stage.update(note=line),
        )
        stage.update(note=f"{found.how}: {found.interpreter}")
    if found.how == "given" and (found.missing or found.torch):
        raise EnvironmentFailed(
            lacks(found.interpreter, found.missing, found.torch),
            meaning="The job names this interpreter, so nothing is installed into it. Nothing was started.",
            hint=how_to_mend(found.interpreter, found.missing, found.torch),
        )
    return found.interpreter


def lacks(interpreter: str, missing: Iterable[str], torch: str | None) -> str:
    """What keeps the interpreter that a job names from running it, as a sentence without its full stop."""
    said = [f"{interpreter} lacks {', '.join(missing)}"] if missing else []
    said += [f"the torch of {interpreter} cannot use the GPU: {torch}"] if torch else []
    return "; ".join(said)


def how_to_mend(interpreter: str, missing: Iterable[str], torch: str | None) -> str:
    """What to type where an interpreter that the job names lacks packages, or has a torch that cannot use the GPU."""
    packages = shlex.join(missing)
    install = f"On the box: {shlex.quote(interpreter)} -m pip install {packages}. Or leave" if packages else "Leave"
    cpu = ", or set resources: {gpus: 0} for the CPU" if torch else ""
    return f"{install} out environment.interpreter: gpurun then finds or builds an environment that has what is needed{cpu}."
