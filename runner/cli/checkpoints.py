"""``gpurun checkpoints``."""

from __future__ import annotations

import click

from runner.cli import options, output
from runner.cli.table import print_rows


@click.command(
    "checkpoints",
    epilog="\b\nExamples:\n  gpurun checkpoints\n  gpurun checkpoints --json\n"
    "  gpurun resume --checkpoint step-000500     continue from one of them\n"
    "  gpurun sample --checkpoint step-000500     generate text with one of them",
)
@options.run_argument
@options.json_option
def command(run: str | None, as_json: bool) -> None:
    """List the checkpoints of a run.

    Shows step, metric, size and age of each, whether it is on the box, here or both, and those that are still being written. Known
    are a recipe's, checkpoint-N, *.ckpt, folders such as step-500, files of weights, and what the job names under checkpoints:.
    """
    from runner import store
    from runner.domain.quantities import format_duration, format_size
    from runner.workflow.checkpoints import checkpoints, metric_of

    record = store.find_started(run)
    found = checkpoints(record, output.reporter(as_json))
    if as_json:
        from runner.cli.as_document.files import checkpoints_document

        return output.print_document(checkpoints_document(record, found))
    metric = metric_of(record)
    rows = [
        [
            each.name,
            _number(each.step, ""),
            _number(each.metrics.get(metric, each.metrics.get(f"eval_{metric}")), ".4f"),
            format_size(each.size),
            format_duration(each.age),
            " and ".join(place for place, true in (("box", each.on_box), ("here", each.here)) if true),
            "yes" if each.resumable else "no",
            "complete",
        ]
        for each in found.complete
    ]
    rows += [
        [each.path, _number(each.step, ""), "", format_size(each.size), format_duration(each.age), "box", "", each.why]
        for each in found.unfinished
    ]
    columns = ("checkpoint", "step", metric, "size", "age", "where", "resumable", "state")
    print_rows(columns, rows, f"{record.run_id} has no checkpoint yet", shrink={"state": 20})


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
