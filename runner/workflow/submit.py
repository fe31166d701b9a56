"""The line: from job files to runs that the box has confirmed. This is the product in one screen; each step is a file of ``submission/``.

    job → run id on disk → pinned host ∥ plan → probe ∥ hub access → push while the environment is built
        → stale processes → claim and launch → confirmed start

Interrupted anywhere, the same submission goes on with ``gpurun submit JOB --run ID``: what was pushed is not sent again, and
the claim on the box (``mkdir runs/<id>``) makes a second launch impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from runner.domain.errors import HostError, PushDiffers, RunLost, TransferError, UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter, Silent
from runner.domain.run import BOX, SLURM, Run
from runner.transport.link import Link, load
from runner.workflow.connect import ReconnectingLink, resolve_or_start_host
from runner.workflow.moving.run_outputs import provide
from runner.workflow.several_boxes.members import fail_if_hosts_do_not_fit
from runner.workflow.submission import checks, cluster, code_copy, environment, launch, push, stale
from runner.workflow.submission.access import Tokens
from runner.workflow.submission.background import background_thread
from runner.workflow.submission.one_box import OneBox, Ready
from runner.workflow.submission.plan import Plan, make_plan
from runner.workflow.submission.records import create_runs, interruption_explained, outcome_recorded
from runner.workflow.submission.resumption import Resumption, require_resumable

NOTHING_BEGUN = (
    UserError,
    HostError,
    RunLost,
    KeyboardInterrupt,
)  # what ends a resume before anything was sent or built


@dataclass(frozen=True)
class Options:
    """What ``gpurun submit`` was told besides jobs and host; ``run_id`` names an earlier try of the one job."""

    volume: str | None = None
    strict: bool = False
    checksum: bool = False
    kill_stale: bool = False
    run_id: str | None = None
    despite_forecast: bool = False
    engine: str = BOX


@dataclass(frozen=True)
class Begun:
    """A run whose record is on disk, its plan while it is worked out, and what it goes on from."""

    run: Run
    plan: Future[Plan]
    resumption: Resumption | None = None


def submit(
    jobs: Sequence[tuple[Job, str | None]],
    host: str,
    report: Reporter,
    options: Options = Options(),
    resumption: Resumption | None = None,
) -> list[Run]:
    """Starts each job (with its experiment) as a run of its own, over one connection; a run that is there already is attached to.

    A link that breaks is opened again, and the runs that wait go on. Raises UserError before anything is contacted, else
    HostError, TransferError or LaunchError; runs that started before stay.
    """
    for job, _ in jobs if options.engine != SLURM else ():
        fail_if_hosts_do_not_fit(job, [host])
    target = resolve_or_start_host(host, options.volume)
    runs = create_runs(
        jobs, host, report, volume=options.volume, engine=options.engine, run_id=options.run_id, resumption=resumption
    )
    # Records of no further use are removed: of a new run that this machine refuses, of a resumed one that was not begun either.
    discard_after = NOTHING_BEGUN if resumption else () if options.run_id else (UserError,)
    trained_there = resumption is not None and not resumption.moves  # it fits, and where the place lies is known
    with (
        interruption_explained(runs),
        outcome_recorded(runs, discard_after=discard_after),
        background_thread() as planner,
        ReconnectingLink(target, report, strict=options.strict, install_python=not trained_there) as connection,
    ):
        planner.submit(load)  # before the plans: the connection cannot open without it
        code, outputs = (resumption.code, resumption.outputs) if resumption else (None, None)
        begun = [
            Begun(
                run,
                planner.submit(make_plan, run.job, checksum=options.checksum, code=code, outputs=outputs),
                resumption,
            )
            for run in runs
        ]
        box = OneBox(
            [run.job for run in runs],
            despite_forecast=options.despite_forecast or trained_there,
            tell_place=not trained_there,
        )
        start_runs(connection, begun, box, Tokens(report), report, options)
    return runs


def start_runs(
    connection: ReconnectingLink,
    begun: Sequence[Begun],
    known: OneBox,
    tokens: Tokens,
    report: Reporter,
    options: Options,
) -> None:
    """Starts the runs on one box, one after the other. The first of a kind is prepared for; those after it need one request each.

    Raises HostError, TransferError or LaunchError; runs that started before stay.
    """
    waiting = list(begun)
    with background_thread() as keeper:  # awaited when all runs are started
        while waiting:
            with connection.link() as link:  # where it breaks, the block ends, and the loop goes round again
                if _start(link, waiting[0], known, tokens, keeper, report, options, watch=len(begun) == 1):
                    launch.confirm_start(link, waiting[0].run)
                    waiting.pop(0)


def _start(
    link: Link,
    begun: Begun,
    known: OneBox,
    tokens: Tokens,
    keeper: ThreadPoolExecutor,
    report: Reporter,
    options: Options,
    *,
    watch: bool,
) -> bool:
    """Starts one run, or finds it started; false where it has to be tried again with another look at the box."""
    run, resumption, plan = begun.run, begun.resumption, begun.plan.result()
    if launch.attach(link, run, plan, report):
        return True
    if resumption:
        require_resumable(link, resumption, plan, run, report)
    known.warn(plan, report)
    ready = known.ready_for(plan)
    reused = ready is not None
    if ready is None:
        ready = _prepare(link, run, plan, known, tokens, keeper, report, options)
    if ready is None:
        return False  # another gpurun has launched it
    disk = known.forecast.disk_of(plan.job)
    start = launch.Start(ready.interpreter, tokens.of(plan.job), resumption, watch=watch, disk=disk)
    try:
        pushed = launch.launch(link, run, plan, ready.pushed, start, report, push_again=not reused)
    except PushDiffers:
        if not reused:
            raise
        known.note_changed(plan)
        return False
    known.note_started(run, plan, replace(ready, pushed=pushed))
    if not reused:
        keeper.submit(code_copy.keep_copy, pushed.code, report)  # unless edited meanwhile, it is kept
    return True


def _prepare(
    link: Link,
    run: Run,
    plan: Plan,
    known: OneBox,
    tokens: Tokens,
    keeper: ThreadPoolExecutor,
    report: Reporter,
    options: Options,
) -> Ready | None:
    """Checks the box and brings there what a run of this kind needs; None where another gpurun has launched the run meanwhile."""
    plan = provide(link, plan, report)
    with background_thread() as hub, background_thread() as other:
        granted = hub.submit(tokens.of, plan.job)
        models = other.submit(known.forecast.read_models)
        box = checks.probe(link, plan, run.run_id, report)
        known.tell_place(link, box, options.volume, report)
        on_cluster = options.engine == SLURM
        checks.fail_if_not_ready((cluster if on_cluster else checks).examine(box, plan))
        granted.result()
        known.forecast.tell(cluster.for_forecast(box, plan.job) if on_cluster else box, models.result(), report)
    try:
        environment.install_tools(link, plan, box, report)
        keeper.submit(code_copy.keep_copy, plan.code, Silent())
        with background_thread() as builder:
            provision = cluster.provision if on_cluster else environment.provision
            built = builder.submit(provision, link, plan, box, report)
            pushed = push.push(link, plan, box, run.run_id, report)
            interpreter = built.result()
    except TransferError:  # perhaps since another gpurun has launched it, with what we were pushing
        if not launch.launched_by_another(run):
            raise
        return None
    if not on_cluster:
        stale.clear(link, plan, box, report, kill=options.kill_stale)
    return Ready(interpreter, pushed)
