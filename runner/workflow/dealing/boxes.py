"""What each of several boxes has: asked of all at once, over the connections that the submission then goes on with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from runner.domain.answers.box import Box
from runner.domain.errors import GpurunError, HostError, UserError
from runner.domain.job import Job
from runner.domain.progress import Prefixed, Reporter
from runner.workflow.connect import ReconnectingLink, resolve_or_start_host
from runner.workflow.dealing.choice import Offer, Wanted
from runner.workflow.each_host import each_host
from runner.workflow.submission import checks
from runner.workflow.submission.models import Models, runs_with_forecast
from runner.workflow.submission.plan import Plan


@dataclass
class Looked:
    """One box as it was found: what it has for each kind of run, and why it cannot run some kinds."""

    host: str
    identity: str
    waiting: int  # runs in its queue
    aside: frozenset[int]  # GPUs that no run is given
    boxes: dict[Hashable, Box]
    refused: dict[Hashable, str] = field(default_factory=dict)

    def offer(self, pace: float) -> Offer:
        """Its GPUs and processors, for dealing."""
        box = next(iter(self.boxes.values()))
        gpus = [gpu for gpu in box.gpus if gpu.index not in self.aside]
        free = sum(gpu.held_by is None for gpu in gpus)
        return Offer(self.host, len(gpus), free, self.waiting, box.cpus, pace)


class Boxes:
    """A connection to each host, opened where one is first needed and kept for the block."""

    def __init__(
        self, hosts: Sequence[str], report: Reporter, *, volume: str | None, strict: bool, install: bool
    ) -> None:
        self.reports: Mapping[str, Reporter] = {host: Prefixed(report, f"{host}: ") for host in hosts}
        self.links = {
            host: ReconnectingLink(
                resolve_or_start_host(host, volume), self.reports[host], strict=strict, install_python=install
            )
            for host in hosts
        }
        self._stack = ExitStack()

    def __enter__(self) -> Boxes:
        for link in self.links.values():
            self._stack.enter_context(link)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()


def look_at_each(
    boxes: Boxes, kinds: Mapping[Hashable, Plan], models: Models, report: Reporter, *, despite: bool
) -> tuple[dict[str, Looked], dict[str, GpurunError]]:
    """What each host has, and why the others cannot be asked. A box that is reached under two names counts once.

    Raises the error of the first host where none can be asked.
    """
    answers = each_host(
        boxes.links, lambda host: _look(boxes.links[host], host, kinds, models, boxes.reports[host], despite)
    )
    if not answers.given:
        answers.raise_first()
    found, left_out, names = dict[str, Looked](), dict(answers.errors), dict[str, str]()
    for host, looked in answers.given.items():
        first = names.setdefault(looked.identity or host, host)
        if first == host:
            found[host] = looked
        else:
            left_out[host] = HostError(f"it is the same box as {first}, and counts once")
    for host, error in left_out.items():
        if isinstance(error, UserError):
            raise error
        report.warn(f"{host} gets no run: {error.message}")
    return found, left_out


def _look(
    connection: ReconnectingLink,
    host: str,
    kinds: Mapping[Hashable, Plan],
    models: Models,
    report: Reporter,
    despite: bool,
) -> Looked:
    while True:
        with connection.link() as link:
            boxes = {kind: checks.probe(link, plan, None, report) for kind, plan in kinds.items()}
            there = link.agent.all_status()
            waiting = sum(status.phase == "prepared" for status in there.runs)
            aside = frozenset(each.gpu for each in there.set_aside)
            looked = Looked(host, link.agent.identity, waiting, aside, boxes)
            for kind, plan in kinds.items():
                bad = [each for each in checks.examine(boxes[kind], plan) if each.verdict == "fail"]
                bad += _forecast_failures(plan.job, boxes[kind], models, despite)
                if bad:
                    looked.refused[kind] = "; ".join(f"{each.what}: {each.said}" for each in bad)
            return looked


def _forecast_failures(job: Job, box: Box, models: Models, despite: bool) -> list[checks.Finding]:
    """Why one run of the job by itself cannot fit this box; nothing for a command, of which there is no forecast."""
    runs = runs_with_forecast([job])
    if not runs:
        return []
    from runner.workflow.submission.verdicts import judge  # a command job does not load what it takes

    return [each for each in judge(runs, box, models, despite=despite).findings if each.verdict == "fail"]


def wanted(plan: Plan, looked: Mapping[str, Looked]) -> Wanted:
    """What one run needs, and what of it has to be sent to each box."""
    to_send = {
        host: sum(
            tree.selection.total_bytes
            for tree in plan.trees
            if not checks.has_tree(each.boxes[plan.kind], plan, tree.name)
        )
        for host, each in looked.items()
    }
    refused = {host: each.refused[plan.kind] for host, each in looked.items() if plan.kind in each.refused}
    return Wanted(plan.kind, plan.job.resources.gpus, plan.job.queue, to_send, refused)
