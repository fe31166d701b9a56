"""``gpurun watch``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from runner.cli import figures, options, output
from runner.cli.audience import is_person
from runner.domain.errors import Interrupted

if TYPE_CHECKING:
    from runner.cli.watching.picture import Picture
    from runner.workflow.sweeping.find import Sweep
    from runner.workflow.watching.watch import Watch, Watched

DRAWN_EVERY = 1.0  # seconds between two drawings, at least
LOOK_HOME_EVERY = 10.0  # seconds between two looks at which checkpoints have come home
CONNECTING = "connecting"
TICK = 0.25  # seconds that a pressed key or a new size of the terminal waits at most


@click.command(
    "watch",
    epilog="\b\nExamples:\n  gpurun watch                     the newest run\n"
    "  gpurun watch legal brie          two runs beside each other\n"
    "  gpurun watch mayors              a sweep: its table\n  gpurun watch --once > now.txt    a still picture",
)
@click.argument("names", nargs=-1, metavar="[RUN or SWEEP]...", shell_complete=options.complete_run)
@click.option("--once", is_flag=True, help="Print one picture and end.")
@options.json_option
def command(names: tuple[str, ...], once: bool, as_json: bool) -> None:
    """Look on while runs train: curves, time left, GPUs, cost, checkpoints, the end of the log.

    q and Ctrl-C leave the run alone. Lost links are opened again; until then the picture says of when it is. Ends when all runs are over,
    with the exit code of the first that failed: 10 failed, 11 cancelled, 12 lost. Without a terminal it prints a line a minute for
    each run, and one for each checkpoint, evaluation and change.
    """
    from runner.workflow.sweeping.find import as_sweep, find_started_runs
    from runner.workflow.watching.watch import Watch

    on_screen = is_person(sys.stdout) and not as_json
    if len(names) == 1 and (on_screen or once) and not as_json and (sweep := as_sweep(names[0])):
        return _sweep(sweep, once)
    try:
        with Watch(find_started_runs(names).runs) as watch:
            if once:
                watch.look_once()
                return _once(watch, as_json)
            left = _terminal(watch) if on_screen else _lines(watch, quiet=as_json)
    except KeyboardInterrupt:
        raise Interrupted(f"The runs go on: {_again(names)}") from None
    if left:
        return click.echo(f"left; the runs go on: {_again(names)}", err=True)
    _end(watch, as_json)


def _again(names: tuple[str, ...]) -> str:
    return " ".join(["gpurun watch", *names])


def _sweep(sweep: Sweep, once: bool) -> None:
    """The table of ``gpurun sweep``; afterwards the error of the first run that failed."""
    from runner.cli.sweep import show_table
    from runner.workflow.observing.status import failures_of

    view = show_table(sweep, once=once)
    failures = [] if once else failures_of(row.run for row in view.rows)
    if failures:
        raise failures[0]


def _once(watch: Watch, as_json: bool) -> None:
    if as_json:
        return _print_document(watch)
    from runner.cli.watching.display import size
    from runner.cli.watching.rows import plain
    from runner.cli.watching.screen import screen

    pictures = Pictures(watch, retries=False).now()
    footer = f"as of {time.strftime('%Y-%m-%d %H:%M:%S')}"
    for row in screen(pictures, *size(), footer):
        click.echo(plain(row))


def _terminal(watch: Watch) -> bool:
    """Draws until all runs are over, or ``q`` is pressed: whether it was."""
    from runner.cli.watching.display import Display, size
    from runner.cli.watching.keys import LEAVE, pressed

    pictures, drawn_at, drawn_for = Pictures(watch), 0.0, (0, 0)
    with Display() as display:
        while watch.goes_on():
            if drawn_for != size() or (watch.changed.is_set() and time.monotonic() - drawn_at >= DRAWN_EVERY):
                watch.changed.clear()
                drawn_at, drawn_for = time.monotonic(), size()
                display.draw(pictures.now(), "q leaves, the runs go on")
            if pressed(TICK) == LEAVE:
                return True
    return False


def _lines(watch: Watch, quiet: bool) -> bool:
    """Prints lines until all runs are over."""
    from runner.cli.watching.lines import Lines

    told: dict[str, Lines] = {}
    pictures, goes_on = Pictures(watch), True
    while goes_on:
        goes_on = watch.goes_on()
        if goes_on:
            watch.changed.wait(1.0)
        watch.changed.clear()
        for picture in [] if quiet else pictures.now():
            if picture.trouble != CONNECTING:
                for line in told.setdefault(picture.seen.run.run_id, Lines()).new(picture, time.time()):
                    output.print_untrusted(line)
    return False


class Pictures:
    """What is drawn of each run, brought up to date with what has come."""

    def __init__(self, watch: Watch, *, retries: bool = True) -> None:
        self._watch = watch
        self._again = ", trying again" if retries else ""
        self._pictures: dict[str, Picture] = {}
        self._looked_home = float("-inf")

    def now(self) -> list[Picture]:
        """A picture for each run."""
        if look_home := time.monotonic() - self._looked_home >= LOOK_HOME_EVERY:
            self._looked_home = time.monotonic()
        return [self._picture(watched, look_home) for watched in self._watch.runs]

    def _picture(self, watched: Watched, look_home: bool) -> Picture:
        from runner.cli.watching.picture import Picture
        from runner.workflow.checkpoints import metric_of
        from runner.workflow.observing.at_home import at_home

        seen, history = watched.seen, watched.history()
        picture = self._pictures.get(seen.run.run_id)
        home = at_home(seen.run).checkpoints if picture is None or look_home else picture.home
        if picture is None:
            picture = self._pictures[seen.run.run_id] = Picture(seen, history, metric=metric_of(seen.run))
        picture.seen, picture.history, picture.log, picture.home = seen, history, watched.log, home
        picture.trouble = self._trouble(watched)
        return picture

    def _trouble(self, watched: Watched) -> str:
        if watched.error is not None:
            return watched.error.message
        if not watched.trouble:
            return "" if watched.seen.status else CONNECTING
        at = watched.seen.at
        since = f"as of {figures.second(at)}" if at else "nothing heard yet"
        return f"{since}{self._again}: {watched.trouble}"


def _end(watch: Watch, as_json: bool) -> None:
    """How the runs ended. Raises the first failure."""
    from runner.cli.logs import how_it_ended

    failure = next((failure for watched in watch.runs if (failure := watched.failure)), None)
    if as_json:
        _print_document(watch)
        sys.exit(failure.exit_code if failure else 0)
    for watched in watch.runs:
        output.print_untrusted(how_it_ended(watched.run), err=True)
    if failure:
        raise failure
    names = [watched.run.run_id for watched in watch.runs]
    click.echo(f"next: gpurun fetch {names[0] if len(names) == 1 else 'RUN'}", err=True)


def _print_document(watch: Watch) -> None:
    from runner.cli.as_document.runs import run_now_document

    output.print_document({"runs": [run_now_document(watched.seen) for watched in watch.runs]})
