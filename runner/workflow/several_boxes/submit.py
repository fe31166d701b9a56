"""One run on several boxes: the line of ``submit``, with each step taken on all boxes at once.

    a link to each box → probe ∥ hub access → the network between them → push while environments are built → stale processes
        → launch on all → confirmed start

The box of rank 0 is "the" box of the run: it has the log, the events and the outputs that count, and is asked for the status.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from runner import store
from runner.domain.answers.box import Box
from runner.domain.errors import BoxNotReady, UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter, Silent
from runner.domain.requests import BoxesRequest
from runner.domain.run import BOX, OtherBox, Run
from runner.transport.link import load
from runner.workflow.connect import resolve_or_start_host
from runner.workflow.moving.run_outputs import fail_if_runs_are_read
from runner.workflow.several_boxes.members import Member, connect_all, fail_if_hosts_do_not_fit, on_each
from runner.workflow.several_boxes.preflight import Meeting, meet
from runner.workflow.several_boxes.start import confirm, launch_on_all
from runner.workflow.submission import access, checks, code_copy, environment, launch, place, push, stale
from runner.workflow.submission.background import background_thread
from runner.workflow.submission.forecast_once import ForecastOnce
from runner.workflow.submission.one_box import Ready
from runner.workflow.submission.plan import Plan, make_plan
from runner.workflow.submission.records import create_runs, interruption_explained, outcome_recorded
from runner.workflow.submission.resumption import Resumption, require_resumable
from runner.workflow.submit import NOTHING_BEGUN, Options


def submit_on_several(
    job: Job,
    experiment: str | None,
    hosts: Sequence[str],
    report: Reporter,
    options: Options,
    resumption: Resumption | None = None,
) -> Run:
    """Starts one run on all these boxes, or attaches to it.

    Raises UserError before anything is contacted, BoxNotReady where a box is not ready or the boxes do not reach each other (nothing was
    pushed then), else HostError, TransferError or LaunchError; the run is on none of the boxes then.
    """
    fail_if_hosts_do_not_fit(job, hosts)
    if options.engine != BOX:
        raise UserError(
            "several boxes (resources.boxes) and --engine slurm do not go together",
            meaning="Nothing was contacted.",
            hint="A cluster's job gets several nodes from Slurm itself: name one --host, its login node.",
        )
    fail_if_runs_are_read(job)
    targets = [resolve_or_start_host(host, options.volume) for host in hosts]
    (run,) = create_runs(
        [(job, experiment)], hosts[0], report, volume=options.volume, run_id=options.run_id, resumption=resumption
    )
    store.update(run, others=tuple(OtherBox(host, options.volume) for host in hosts[1:]))
    discard_after = NOTHING_BEGUN if resumption else () if options.run_id else (UserError,)
    with (
        interruption_explained([run]),
        outcome_recorded([run], discard_after=discard_after),
        background_thread() as planner,
        background_thread() as keeper,
        connect_all(hosts, targets, report, strict=options.strict) as members,
    ):
        planner.submit(load)
        code, outputs = (resumption.code, resumption.outputs) if resumption else (None, None)
        plan = planner.submit(make_plan, job, checksum=options.checksum, code=code, outputs=outputs).result()
        if launch.attach(members[0].link, run, plan, report):
            launch.confirm_start(members[0].link, run)
            return run
        if resumption:
            require_resumable(members[0].link, resumption, plan, run, report)
        for warning in plan.warnings:
            report.warn(warning)
        token, boxes = _look_at_boxes(members, plan, run, report, options)
        meeting = meet([member.link for member in members], report)
        members, boxes = _by_rank(run, members, boxes, meeting)
        keeper.submit(code_copy.keep_copy, plan.code, Silent())
        ready = on_each(members, lambda rank, member: _bring(member, plan, boxes[rank], run, options))
        told = requests(meeting)
        starts = [
            launch.Start(each.interpreter, token, resumption, watch=rank == 0, boxes=told[rank])
            for rank, each in enumerate(ready)
        ]
        launch_on_all(members, run, plan, [each.pushed for each in ready], starts)
        confirm(members, run)
    return run


def requests(meeting: Meeting) -> list[BoxesRequest]:
    """What each box is told of the others, by rank."""
    word = secrets.token_hex(16)
    return [
        {
            "size": len(meeting.seats),
            "rank": rank,
            "address": meeting.seats[0].address,
            "rendezvous": meeting.rendezvous,
            "supervisors": meeting.supervisors,
            "interface": seat.interface,
            "word": word,
        }
        for rank, seat in enumerate(meeting.seats)
    ]


def _look_at_boxes(
    members: Sequence[Member], plan: Plan, run: Run, report: Reporter, options: Options
) -> tuple[str | None, list[Box]]:
    """The hub's token and what each box is. Raises BoxNotReady with what every box lacks, HubAccessDenied."""
    forecast = ForecastOnce([plan.job], despite=options.despite_forecast)
    with background_thread() as hub, background_thread() as other:
        granted = hub.submit(access.require, plan.job, report)
        models = other.submit(forecast.read_models)
        boxes = on_each(members, lambda rank, member: checks.probe(member.link, plan, run.run_id, member.report))
        for member, box in zip(members, boxes, strict=True):
            place.tell_place(member.link, box, options.volume, member.report)
        _fail_if_not_ready(members, boxes, plan)
        token = granted.result()
        for member, box in zip(members, boxes, strict=True):
            forecast.tell(box, models.result(), member.report)
    return token, boxes


def _fail_if_not_ready(members: Sequence[Member], boxes: Sequence[Box], plan: Plan) -> None:
    lacking = []
    for member, box in zip(members, boxes, strict=True):
        try:
            checks.fail_if_not_ready(checks.examine(box, plan))
        except BoxNotReady as error:
            lacking.append((member.host, error))
    if lacking:
        raise BoxNotReady(
            "\n".join(f"{host}: {line}" for host, error in lacking for line in error.message.splitlines()),
            meaning="Nothing was pushed or started.",
            hint="\n".join(dict.fromkeys(line for _, error in lacking for line in error.hint.splitlines())),
        )


def _by_rank(
    run: Run, members: Sequence[Member], boxes: Sequence[Box], meeting: Meeting
) -> tuple[list[Member], list[Box]]:
    """Boxes in the order of their ranks; the record follows where the provider's order is another than that of the hosts."""
    order = [seat.place for seat in meeting.seats]
    sorted_members = [members[each] for each in order]
    others = tuple(OtherBox(member.host, run.volume) for member in sorted_members[1:])
    store.update(run, host=sorted_members[0].host, others=others)
    return sorted_members, [boxes[each] for each in order]


def _bring(member: Member, plan: Plan, box: Box, run: Run, options: Options) -> Ready:
    """Brings everything to one box. Raises TransferError, EnvironmentFailed; the run was not claimed there then."""
    link, report = member.link, member.report
    environment.install_tools(link, plan, box, report)
    with background_thread() as builder:
        built = builder.submit(environment.provision, link, plan, box, report)
        pushed = push.push(link, plan, box, run.run_id, report)
        interpreter = built.result()
    stale.clear(link, plan, box, report, kill=options.kill_stale)
    return Ready(interpreter, pushed)
