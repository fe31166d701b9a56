"""The line: from job files to runs that the box has confirmed. This is the product in one screen; each step is a file of ``submission/``.

    job → run id on disk → pinned host ∥ plan → probe ∥ hub access → push while the environment is built
        → stale processes → claim and launch → confirmed start

Interrupted anywhere, the same submission goes on with ``gpurun submit JOB --run ID``: what was pushed is not sent again, and
the claim on the box (``mkdir runs/<id>``) makes a second launch impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.domain.errors import HostError, RunLost, TransferError, UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter, Silent
from runner.domain.run import Run
from runner.transport.link import load
from runner.workflow.connect import ReconnectingLink, resolve_or_start_host
from runner.workflow.submission import access, checks, code_copy, environment, launch, place, push, stale
from runner.workflow.submission.background import background_thread
from runner.workflow.submission.forecast_once import ForecastOnce
from runner.workflow.submission.plan import make_plan
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
    target = resolve_or_start_host(host, options.volume)
    runs = create_runs(jobs, host, report, volume=options.volume, run_id=options.run_id, resumption=resumption)
    # Records of no further use are removed: of a new run that this machine refuses, of a resumed one that was not begun either.
    discard_after = NOTHING_BEGUN if resumption else () if options.run_id else (UserError,)
    with (
        interruption_explained(runs),
        outcome_recorded(runs, discard_after=discard_after),
        background_thread() as planner,
        background_thread() as keeper,  # awaited when all runs are started
        ReconnectingLink(
            target, report, strict=options.strict, install_python=not resumption or resumption.moves
        ) as connection,
    ):
        planner.submit(load)  # before the plans: the connection cannot open without it
        code, outputs = (resumption.code, resumption.outputs) if resumption else (None, None)
        plans = [
            planner.submit(make_plan, job, checksum=options.checksum, code=code, outputs=outputs) for job, _ in jobs
        ]
        waiting = list(zip(runs, plans, strict=True))
        trained_there = resumption is not None and not resumption.moves
        despite = options.despite_forecast or trained_there
        forecast = ForecastOnce([job for job, _ in jobs], despite=despite)
        while waiting:
            run, planned = waiting[0]
            with connection.link() as link:  # where it breaks, the block ends, and the loop goes round again
                plan = planned.result()
                if not launch.attach(link, run, plan, report):
                    if resumption:
                        require_resumable(link, resumption, plan, run, report)
                    for warning in plan.warnings:
                        report.warn(warning)
                    with background_thread() as hub, background_thread() as other:
                        granted = hub.submit(access.require, plan.job, report)
                        models = other.submit(forecast.read_models)
                        box = checks.probe(link, plan, run.run_id, report)
                        if run is runs[0] and not (resumption and not resumption.moves):  # where that lies is known
                            place.tell_place(link, box, options.volume, report)
                        checks.fail_if_not_ready(checks.examine(box, plan))
                        token = granted.result()
                        forecast.tell(box, models.result(), report)
                    try:
                        environment.install_tools(link, plan, box, report)
                        keeper.submit(code_copy.keep_copy, plan.code, Silent())
                        with background_thread() as builder:
                            built = builder.submit(environment.provision, link, plan, box, report)
                            pushed = push.push(link, plan, box, run.run_id, report)
                            interpreter = built.result()
                    except TransferError:  # perhaps since another gpurun has launched it, with what we were pushing
                        if not launch.launched_by_another(run):
                            raise
                        continue
                    stale.clear(link, plan, box, report, kill=options.kill_stale)
                    start = launch.Start(interpreter, token, resumption, watch=len(runs) == 1)
                    pushed = launch.launch(link, run, plan, pushed, start, report)
                    keeper.submit(code_copy.keep_copy, pushed.code, report)  # the same, unless it was edited meanwhile
                launch.confirm_start(link, run)
                waiting.pop(0)
    return runs
