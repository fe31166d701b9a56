"""``gpurun stop``: ends runs, and makes sure that no process of them is left."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from runner import store
from runner.domain.answers.status import Status
from runner.domain.answers.verbs import Process
from runner.domain.errors import RunFailed
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean
from runner.transport.link import Link
from runner.workflow.each_host import Place, ask_each_host, by_place, place_of
from runner.workflow.observing.follow import remember_status


@dataclass(frozen=True)
class Stopped:
    run: Run
    status: Status
    device_holders: tuple[Process, ...]  # who still has a GPU open; not ours


def stop(run: Run, report: Reporter, grace: float | None = None) -> Stopped:
    """TERM, after ``grace`` seconds KILL, until two scans find no process. Raises RunFailed naming processes that survive.

    None: 45 seconds, or as long as the run needs to save its last checkpoint.
    """
    return stop_all([run], report, grace)[0]


def stop_all(runs: list[Run], report: Reporter, grace: float | None = None) -> list[Stopped]:
    """Ends all at once over one link for each box, so that no queued run takes the place of one that ends.

    Raises the first run's (or box's) error, after the others have been ended.
    """
    groups = by_place(runs)
    for run in runs:
        for other in run.others:  # its processes there end too, and that is looked at
            groups.setdefault(Place(other.host, other.volume), []).append(run)
    answers = ask_each_host(
        groups, lambda place, link, told: _stop_at_once(place, link, groups[place], told, grace), report
    )
    answers.raise_first()
    leading = (each for place, stopped in answers.given.items() for each in stopped if place_of(each.run) == place)
    return list(leading)


def unfinished() -> list[Run]:
    """The runs of this machine that may live, as last seen."""
    return [run for run in store.load_all()[0] if run.attempted and may_live(run)]


def may_live(run: Run) -> bool:
    """Whether the run was not over when it was last seen."""
    return not (run.status and run.status.finished)


def _stop_at_once(place: Place, link: Link, runs: list[Run], report: Reporter, grace: float | None) -> list[Stopped]:
    title = runs[0].run_id if len(runs) == 1 else f"{len(runs)} runs"
    with report.stage(f"stop {title}") as stage:

        def tell(line: str) -> None:
            stage.update(note=line)

        with ThreadPoolExecutor(len(runs)) as pool:
            asked: list[Future[Stopped]] = [pool.submit(_stop, place, link, run, grace, tell) for run in runs]
        stage.update(note="")  # the last note was about processes that are gone now
    return [each.result() for each in asked]


def _stop(place: Place, link: Link, run: Run, grace: float | None, tell: Callable[[str], None]) -> Stopped:
    ended = link.agent.stop(run.run_id, grace, tell)
    if place_of(run) == place:  # a run on several boxes has the status of its first
        remember_status(run, ended.status)
    if ended.survivors:
        who = ", ".join(f"{each.pid} ({clean(each.command, 60)})" for each in ended.survivors)
        raise RunFailed(
            f"{run.run_id} was killed, and these processes are still there: {who}",
            meaning="They wait for the kernel (a hung driver or disk), and may hold GPU memory.",
            hint="Restart the container or the box; nothing else ends them.",
        )
    return Stopped(run, ended.status, ended.device_holders)
