"""Steps of gpurun's own line, timed by themselves in this process: what a person does with one command has no launch around it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.box import Bench
from tests.benchmarks.measure import seconds


@contextmanager
def pushing(
    made: Bench, project: Path, port: int | None = None, *, keep: bool = False
) -> Iterator[Callable[[], float]]:
    """A function that pushes the project as code for the first time, over a link that is there, and gives the seconds it took.

    ``keep``: what arrived stays until the bench ends.
    """
    os.environ["GPURUN_HOME"] = str(made.home)
    from runner.domain.progress import Silent
    from runner.jobfile import load
    from runner.workflow.connect import connect, resolve_or_start_host
    from runner.workflow.submission.checks import probe
    from runner.workflow.submission.plan import make_plan
    from runner.workflow.submission.push import push
    from runner.workflow.submission.records import create_runs

    job = load(made.job(project))
    with connect(resolve_or_start_host(made.typed(port)), Silent()) as link:

        def first_push() -> float:
            plan, (run,) = make_plan(job), create_runs([(job, None)], made.typed(port), Silent())
            box = probe(link, plan, run.run_id, Silent())
            took = seconds(lambda: push(link, plan, box, run.run_id, Silent()))
            if not keep:
                shutil.rmtree(link.paths.incoming(run.run_id))
            return took

        yield first_push
