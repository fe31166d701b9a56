"""``gpurun submit`` with several ``--host``: the runs are dealt to the boxes, and each box starts its own, all boxes at the same time.

records on disk → each box asked at once → dealt, and each record names its box → the line of ``submit.py`` on each box
    → what a box could not start is dealt to the others, if it was not asked for there
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from runner import store
from runner.domain.errors import BoxNotReady, GpurunError, HubAccessDenied, UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.quantities import pluralise
from runner.domain.run import Run
from runner.transport.link import load
from runner.workflow.dealing.boxes import Boxes, Looked, look_at_each, wanted
from runner.workflow.dealing.choice import Choice, deal
from runner.workflow.dealing.pace import paces
from runner.workflow.each_host import each_host
from runner.workflow.submission.access import Tokens
from runner.workflow.submission.background import background_thread
from runner.workflow.submission.models import read_models, runs_with_forecast
from runner.workflow.submission.one_box import OneBox
from runner.workflow.submission.plan import Plan, make_plan
from runner.workflow.submission.records import create_runs, interruption_explained, is_refusal, outcome_recorded
from runner.workflow.submit import Begun, Options, start_runs

Jobs = Sequence[tuple[Job, str | None]]
MANY = 1000  # records: what older ones tell of a box's speed may not be true any more
ALIKE_EVERYWHERE = (UserError, HubAccessDenied)  # another box would end it in the same way


@dataclass(frozen=True)
class Dealt:
    """Which box a run goes to, and why; in a dry run there is no run yet."""

    job: Job
    host: str
    why: str
    run: Run | None = None


@dataclass(frozen=True)
class Dealing:
    """What became of each run in the order of the jobs, and the hosts that were left out, each with its error."""

    runs: list[Dealt]
    left_out: Mapping[str, GpurunError]


def submit_to_several(jobs: Jobs, hosts: Sequence[str], report: Reporter, options: Options) -> Dealing:
    """Starts each job as a run of its own on one of the boxes, over one connection a box.

    A box that cannot be asked gets no run; what a box did not start goes to the others. Raises UserError before anything is contacted,
    BoxNotReady for a run that no box can run (nothing was sent then), else the error of a box, after the others have started theirs.
    """
    boxes = Boxes(hosts, report, volume=options.volume, strict=options.strict, install=True)
    runs = create_runs(jobs, hosts[0], report, volume=options.volume)
    with (
        interruption_explained(runs),
        outcome_recorded(runs, discard_after=(UserError,)),
        background_thread() as planner,
        boxes,
    ):
        planner.submit(load)
        plans = [planner.submit(make_plan, job, checksum=options.checksum) for job, _ in jobs]
        begun = [Begun(run, plan) for run, plan in zip(runs, plans, strict=True)]
        looked, left_out = _look([each.result() for each in plans], boxes, report, options)
        why = _start(begun, boxes, looked, left_out, report, options)
    return Dealing([Dealt(run.job, run.host, why[run.run_id], run) for run in runs], left_out)


def deal_only(jobs: Jobs, hosts: Sequence[str], report: Reporter, options: Options) -> Dealing:
    """Which box each run would go to now; nothing is sent or written. Raises as ``submit_to_several`` does before it sends anything."""
    plans = [make_plan(job, checksum=options.checksum) for job, _ in jobs]
    with Boxes(hosts, report, volume=options.volume, strict=options.strict, install=False) as boxes:
        looked, errors = _look(plans, boxes, report, options)
        choices = _deal(jobs, plans, looked)
        return Dealing(
            [Dealt(job, each.host or "", each.why) for (job, _), each in zip(jobs, choices, strict=True)], errors
        )


def _look(
    plans: Sequence[Plan], boxes: Boxes, report: Reporter, options: Options
) -> tuple[dict[str, Looked], dict[str, GpurunError]]:
    kinds: dict[Hashable, Plan] = {}
    for plan in plans:
        kinds.setdefault(plan.kind, plan)
    models = read_models(runs_with_forecast([plan.job for plan in plans]))
    return look_at_each(boxes, kinds, models, report, despite=options.despite_forecast)


def _start(
    begun: Sequence[Begun],
    boxes: Boxes,
    looked: dict[str, Looked],
    left_out: dict[str, GpurunError],
    report: Reporter,
    options: Options,
) -> dict[str, str]:
    """Deals and starts the runs, again without the boxes that failed; why each went where, by its id. Raises the error of a box.

    A run that a box may have started stays with it, whatever else that box does.
    """
    jobs = [each.run.job for each in begun]
    known = {host: OneBox(jobs, despite_forecast=options.despite_forecast) for host in looked}
    tokens, why = Tokens(report), dict[str, str]()
    waiting, unsure = list(begun), list[GpurunError]()
    while waiting:
        shares = _deal_out(waiting, looked, why, report)

        def start(host: str, shares: Mapping[str, Sequence[Begun]] = shares) -> None:
            start_runs(boxes.links[host], shares[host], known[host], tokens, boxes.reports[host], options)

        failed = each_host(shares, start).errors
        left_out.update(failed)
        waiting = [each for host, error in failed.items() for each in _may_go_elsewhere(shares[host], error)]
        looked = {
            host: replace(each, waiting=each.waiting + len(shares.get(host, ())))
            for host, each in looked.items()
            if host not in failed
        }
        for host, error in failed.items():
            if waiting and (isinstance(error, ALIKE_EVERYWHERE) or not _all_fit(waiting, looked)):
                raise error
            report.warn(f"{host} started no more runs: {error.message}")
            unsure += [error for each in shares[host] if each.run.attempted and not each.run.launched]
    for error in unsure:
        raise error
    return why


def _deal_out(
    waiting: Sequence[Begun], looked: Mapping[str, Looked], why: dict[str, str], report: Reporter
) -> dict[str, list[Begun]]:
    """The runs of each box. Each record names the box before anything of the run is sent there."""
    choices = _deal([(each.run.job, each.run.experiment) for each in waiting], _plans(waiting), looked)
    shares: dict[str, list[Begun]] = {}
    for each, choice in zip(waiting, choices, strict=True):
        assert choice.host is not None
        store.update(each.run, host=choice.host)
        why[each.run.run_id] = choice.why
        shares.setdefault(choice.host, []).append(each)
    for host, share in shares.items():
        report.note(f"{host} gets {pluralise(len(share), 'run')}: {why[share[0].run.run_id]}")
    return shares


def _may_go_elsewhere(share: Sequence[Begun], error: GpurunError) -> list[Begun]:
    """The runs of a box that failed which it was not asked to start, or has refused."""
    if is_refusal(error):
        for each in share:
            if each.run.attempted and not each.run.launched:
                store.update(each.run, attempted=False)
    return [each for each in share if not each.run.attempted and not each.run.launched]


def _all_fit(waiting: Sequence[Begun], looked: Mapping[str, Looked]) -> bool:
    """Whether the boxes that are left can run all that waits."""
    return all(set(looked) - set(wanted(plan, looked).refused) for plan in _plans(waiting))


def _plans(begun: Sequence[Begun]) -> list[Plan]:
    return [each.plan.result() for each in begun]


def _deal(jobs: Jobs, plans: Sequence[Plan], looked: Mapping[str, Looked]) -> list[Choice]:
    """A box for each run. Raises BoxNotReady for those that no box can run."""
    known = store.load_all(MANY)[0]
    pace = paces(known, jobs, {host: each.identity for host, each in looked.items()})
    choices = deal([wanted(plan, looked) for plan in plans], [each.offer(pace[host]) for host, each in looked.items()])
    impossible = {plan.job.name: each.why for plan, each in zip(plans, choices, strict=True) if each.host is None}
    if impossible:
        raise BoxNotReady(
            "\n".join(f"{name} can run on none of the boxes: {why}" for name, why in impossible.items()),
            meaning="Nothing was pushed or started.",
            hint="gpurun check JOB with the same --host tells what each box lacks, and how to mend it.",
        )
    return choices
