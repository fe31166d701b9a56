"""``gpurun tensorboard``."""

from __future__ import annotations

import click

from runner.cli import options, output


@click.command(
    "tensorboard",
    epilog="\b\nExamples:\n  gpurun tensorboard           the newest run\n  gpurun tensorboard legal brie\n"
    "  gpurun tensorboard mayors    the runs of a sweep",
)
@click.argument("names", nargs=-1, metavar="[RUN…]", shell_complete=options.complete_run)
@options.json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Start TensorBoard on this machine over the logs of runs, each under its name.

    While a run trains, its logs (no models) come home every few seconds. RUN may be a sweep: then each of its runs. Without RUN the newest.

    Ctrl-C ends TensorBoard; the runs go on.
    """
    from runner.domain.errors import Interrupted
    from runner.workflow.sweeping.find import find_started_runs
    from runner.workflow.tensorboard import serve

    report = output.reporter(as_json)
    runs = find_started_runs(names).runs
    shown = False

    def answers(address: str) -> None:
        nonlocal shown
        shown = True
        if as_json:
            return output.print_document({"address": address, "runs": [run.run_id for run in runs]})
        click.echo(address)
        report.note("Ctrl-C ends TensorBoard; the runs do not need it")

    try:
        serve.show(runs, report, answers)
    except KeyboardInterrupt:
        if not shown:
            raise Interrupted("TensorBoard was not started. The runs do not need it.") from None
