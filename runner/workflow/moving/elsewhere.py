"""``gpurun resume --all --host OTHER``: what waited or ran on a box that is gone goes on at OTHER, over one connection.

Each run goes on once. The record of a run says which run takes its place (``went_on_as``), and is written under its lock before anything is
sent; the record of that run says which box is asked to start it, under its lock before it is asked. So a command that was killed is typed
again and does the rest, and of two at the same time one starts the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from runner import store
from runner.domain.answers.recovery import InterruptedRun
from runner.domain.answers.status import Status
from runner.domain.errors import GpurunError, HostError, StartedElsewhere
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.quantities import pluralise
from runner.domain.run import Run, mint_id
from runner.workflow.connect import ReconnectingLink, resolve_or_start_host
from runner.workflow.moving.code import code_of
from runner.workflow.moving.gone import on_gone_boxes, unfinished_elsewhere, without_those_on
from runner.workflow.moving.home import AUTO, Outputs, outputs_at_home
from runner.workflow.moving.job import for_another_box
from runner.workflow.recovery.turns import WENT_ON, Records, Turn, read_records
from runner.workflow.resume import job_and_code
from runner.workflow.submission.access import Tokens
from runner.workflow.submission.background import background_thread
from runner.workflow.submission.one_box import OneBox
from runner.workflow.submission.plan import make_plan, secrets_of
from runner.workflow.submission.records import interruption_explained, is_refusal
from runner.workflow.submission.resumption import Resumption
from runner.workflow.submit import Begun, Options, start_runs


@dataclass
class Move:
    """A run that can go on: its turn, its job as it is on the new box, and what it goes on from."""

    turn: Turn
    job: Job
    resumption: Resumption


def go_on_elsewhere(
    host: str, report: Reporter, *, interrupted: Sequence[Turn], only: Collection[str] | None, dry_run: bool
) -> list[Turn]:
    """The runs of boxes that are gone, in the order of their turns, after all that can be started on ``host`` was started there.

    ``only`` are the ids of runs to look at. Without: the sweeps of the runs that a restart of ``host`` ``interrupted`` and that have not
    gone on; else the newest sweep with such a run. Others are told. Raises HostError where ``host`` cannot be asked.
    """
    records = read_records()
    chosen = _chosen(unfinished_elsewhere(records, host), interrupted, only, host, report)
    runs = on_gone_boxes(without_those_on(chosen, host, report), host, report)
    turns = [_turn(run) for run in runs]
    moves = [move for turn in turns if (move := _move(turn, host, records, report))]
    if moves and not dry_run:
        _start(moves, host, report)
    return turns


def _chosen(
    runs: Sequence[Run], interrupted: Sequence[Turn], only: Collection[str] | None, host: str, report: Reporter
) -> list[Run]:
    if only is not None:
        return [run for run in runs if run.run_id in only]
    sweeps = {_sweep_of(turn.run) for turn in interrupted if turn.run and turn.what != WENT_ON}
    if not sweeps and runs:
        sweeps = {_sweep_of(max(runs, key=lambda run: run.created_at))}
    left = dict.fromkeys(_sweep_of(run) for run in runs if _sweep_of(run) not in sweeps)
    for sweep in left:
        count = sum(_sweep_of(run) == sweep for run in runs)
        report.note(f"{pluralise(count, 'run')} of {sweep} not looked at: gpurun resume --all {sweep} --host '{host}'")
    return [run for run in runs if _sweep_of(run) in sweeps]


def _sweep_of(run: Run) -> str:
    return run.submission or run.run_id


def _turn(run: Run) -> Turn:
    status = run.status or Status(run.run_id, "prepared")
    was = "waiting" if status.phase == "prepared" else "running"
    return Turn(InterruptedRun(status, was, None, (), None, None, None), run)


def _move(turn: Turn, host: str, records: Records, report: Reporter) -> Move | None:
    """What the run takes along; None where it stays, and the turn says why."""
    run = turn.run
    assert run is not None
    try:
        secrets_of(run.job)
        job, code = job_and_code(run, (), None, report)
        job = for_another_box(job, run, host, (), report)
        waits = replace(job, queue=job.resources.gpus != 0)  # for its turn, where the GPUs are not free
        job = waits.at(job.folder, job.file, job.overrides)
        taken = code_of(run, job, code, True, report)
        earlier, outputs = _home(run, records)
        tree = outputs.tree(earlier) if outputs else None
    except (GpurunError, OSError) as error:
        turn.stays(
            str(error), getattr(error, "hint", "") or f"gpurun resume {run.run_id} --host '{host}' moves it alone."
        )
        return None
    checkpoint = outputs.checkpoint.name if outputs and outputs.checkpoint else None
    turn.found = replace(turn.found, checkpoint=checkpoint)
    return Move(turn, job, Resumption(earlier, AUTO, code=taken, outputs=tree, anew=tree is None))


def _home(run: Run, records: Records) -> tuple[Run, Outputs | None]:
    """What is home of the run, else of the one that it has continued, and so on."""
    each: Run | None = run
    while each is not None:
        outputs = outputs_at_home(each, AUTO)
        if outputs is not None:
            return each, outputs
        each = records.runs.get(each.parent) if each.parent else None
    return run, None


def _start(moves: Sequence[Move], host: str, report: Reporter) -> None:
    """Starts the runs in their order over one connection; each turn says what became of its run."""
    target = resolve_or_start_host(host)
    taken = [(move, new) for move in moves if (new := _take_place(move, host)) is not None]
    if not taken:
        return
    jobs = [move.job for move, _ in taken]
    known, tokens, options = OneBox(jobs, despite_forecast=False), Tokens(report), Options()
    with (
        interruption_explained([new for _, new in taken]),
        background_thread() as planner,
        ReconnectingLink(target, report, install_python=True) as connection,
    ):
        begun = {
            new.run_id: Begun(
                new,
                planner.submit(make_plan, move.job, code=move.resumption.code, outputs=move.resumption.outputs),
                move.resumption,
            )
            for move, new in taken
        }

        def start(news: Sequence[Run]) -> None:
            start_runs(connection, [begun[new.run_id] for new in news], known, tokens, report, options)

        _start_each(taken, start)


def _take_place(move: Move, host: str) -> Run | None:
    """The run that takes the place, its record on disk; None where another gpurun has asked another box to start it."""
    run = move.turn.run
    assert run is not None
    new = store.take_place(run, _new_run(run, move.job, host))
    if new.launched or not store.send_to(new, host):
        move.turn.successor = new.run_id
        return None
    store.update(new, job=move.job)
    move.turn.new = new
    return new


def _new_run(run: Run, job: Job, host: str) -> Run:
    return Run(
        run_id=mint_id(job.name),
        job=job,
        host=host,
        created_at=time.time(),
        parent=run.run_id,
        experiment=run.experiment,
        submission=run.submission,
    )


def _start_each(taken: Sequence[tuple[Move, Run]], start: Callable[[Sequence[Run]], None]) -> None:
    """Starts all. What one run lacks does not keep the others, an error of the box does. A run that was not asked for leaves no record."""
    left = list(taken)
    try:
        while left:
            try:
                start([new for _, new in left])
            except GpurunError as error:
                left = [pair for pair in left if not pair[1].launched]
                failed = left if isinstance(error, HostError) else left[:1]
                for move, new in failed:
                    _stays(move, new, error)
                left = left[len(failed) :]
            else:
                left = []
    finally:
        for move, new in taken:
            move.turn.started = new.launched
            if not new.launched and not new.attempted and move.turn.run is not None:
                store.give_place_back(move.turn.run, new)


def _stays(move: Move, new: Run, error: GpurunError) -> None:
    assert move.turn.run is not None
    if isinstance(error, StartedElsewhere):
        move.turn.successor = new.run_id
        return
    move.turn.stays(error.message, error.hint or "Repeat the command when that is mended.")
    if is_refusal(error) and new.attempted:
        store.give_place_back(move.turn.run, new, refused=True)
