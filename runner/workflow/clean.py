"""What gpurun may delete on a box: looked at first, deleted when told to.

What may go is decided by what the box has now and what is on this machine now: a run whose results are not here stays, unless
it was named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from runner import store
from runner.domain.answers.holdings import Held, Holdings
from runner.domain.answers.verbs import Cleaned
from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run, matching
from runner.push import kept_code
from runner.transport.link import Link
from runner.workflow.connect import connect, resolve_or_start_host
from runner.workflow.fetching.fetched_state import compare_with_local, list_holdings
from runner.workflow.retention import Candidate, Decision, decide_retention

UNDER_WAY = 86400.0  # seconds


@dataclass(frozen=True)
class Choice:
    """The runs that may go: ``named`` whatever is home of them, ``home`` because all of it is; what was decided of an experiment's.

    ``code`` are copies on this machine that no run needs any more.
    """

    named: tuple[str, ...]
    home: tuple[str, ...]
    decided: list[Decision] = field(default_factory=list)
    code: kept_code.Copies = field(default_factory=kept_code.Copies)


def choose(
    link: Link,
    report: Reporter,
    names: tuple[str, ...],
    experiment: str | None = None,
    keep: int = 1,
    sweep: Collection[str] = (),
) -> Choice:
    """Which runs may go. By itself those that ``done`` called home and that still are; with ``experiment`` its runs alone, with ``sweep``
    (run ids) those alone.

    Raises UserError for a name, or an experiment, of which no run is on the box.
    """
    box = list_holdings(link, report)
    named = tuple(_named(box, name) for name in names)
    known = {run.run_id: run for run in store.load_all()[0]}
    here = [(known[held.run_id], held) for held in box.runs if held.run_id in known and held.root == link.paths.root]
    if sweep:
        wanted = [pair for pair in here if pair[0].run_id in sweep]
    else:
        wanted = _of_experiment(here, experiment) if experiment else [pair for pair in here if pair[0].done]
    states = compare_with_local(link, [(run, held) for run, held in wanted if not held.going])
    if not experiment and not sweep:
        return Choice(named, tuple(run_id for run_id, state in states.items() if not state.reasons(leave_behind=True)))
    decided = decide_retention([Candidate(run, held, states.get(run.run_id)) for run, held in wanted], keep, named)
    return Choice(named, tuple(each.run_id for each in decided if each.goes), decided)


def clean_box(
    host: str,
    report: Reporter,
    confirm: Callable[[Choice, Cleaned], bool],
    *,
    names: tuple[str, ...] = (),
    experiment: str | None = None,
    keep: int = 1,
    sweep: Collection[str] = (),
    everything: bool = False,
) -> tuple[Choice, Cleaned, bool]:
    """Shows ``confirm`` what may go on a box, and deletes that where it returns True. One connection for both.

    Gives the choice, what was deleted or would be, and whether it was.
    """
    with connect(resolve_or_start_host(host), report) as link:
        choice = choose(link, report, names, experiment, keep, sweep)
        choice = replace(choice, code=_unneeded_code(dry_run=True))
        found = clean(link, report, choice, dry_run=True, everything=everything)
        wanted = confirm(choice, found)
        if wanted:
            found = clean(link, report, choice, dry_run=False, everything=everything)
            choice = replace(choice, code=_unneeded_code(dry_run=False))
    return choice, found, wanted


def clean(link: Link, report: Reporter, choice: Choice, *, dry_run: bool, everything: bool) -> Cleaned:
    """Has the box delete the chosen runs and what nothing refers to, or tell what would go; never a live run."""
    with report.stage("look at what may go" if dry_run else "delete") as stage:
        return link.agent.clean(
            dry_run=dry_run,
            run_ids=choice.named,
            fetched=choice.home,
            everything=everything,
            tell=lambda line: stage.update(note=line),
        )


def never_started(names: Sequence[str] = ()) -> list[Run]:
    """The runs of this machine that no box has: refused, or cut off before the launch was asked for. Oldest first.

    Without ``names`` a submission that was cut off less than a day ago is left out: it may be under way, or be gone on with.
    Raises UserError for a named run that was started.
    """
    if names:
        found = [store.find(name) for name in names]
        for run in found:
            if run.may_be_there:
                raise UserError(
                    f"{run.run_id} was started: its record stays",
                    meaning="Nothing was removed.",
                    hint=f"gpurun clean {run.run_id} deletes what is left of it on its box.",
                )
        return found
    return [
        run
        for run in store.load_all()[0]
        if not run.may_be_there and (run.not_started or time.time() - run.created_at > UNDER_WAY)
    ]


def remove_records(runs: Sequence[Run]) -> list[str]:
    """Removes the records of runs that never started; the ids of those that are gone."""
    removed = [run.run_id for run in runs if store.discard_never_started(run.run_id)]
    for run in store.load_all()[0]:
        if run.went_on_as in removed:
            store.update(run, went_on_as=None)
    return removed


def _unneeded_code(*, dry_run: bool) -> kept_code.Copies:
    """Copies of code on this machine whose runs are all done, or have no record any more; removed unless ``dry_run``."""
    runs, damaged = store.load_all()
    if damaged:  # what their runs had is not known
        return kept_code.Copies()
    return kept_code.prune({run.code for run in runs if not run.done}, dry_run=dry_run)


def _named(box: Holdings, name: str) -> str:
    fitting = matching(name, sorted(held.run_id for held in box.runs))
    if len(fitting) == 1:
        return fitting[0]
    what = (
        f"{name!r} fits {len(fitting)} runs: {', '.join(fitting[-4:])}"
        if fitting
        else f"no run {name!r} is on that box"
    )
    raise UserError(what, meaning="Nothing was deleted.", hint="gpurun list --host HOST shows what is on a box.")


def _of_experiment(here: list[tuple[Run, Held]], experiment: str) -> list[tuple[Run, Held]]:
    found = [(run, held) for run, held in here if run.experiment == experiment]
    if found:
        return found
    others = ", ".join(sorted({run.experiment for run, _ in here if run.experiment}))
    raise UserError(
        f"no run of the experiment {experiment!r} that this machine submitted is on that box",
        meaning="Nothing was deleted.",
        hint=f"There: {others}" if others else "gpurun list --host HOST shows what is on a box.",
    )
