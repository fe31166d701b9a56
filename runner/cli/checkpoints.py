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
    """List the complete checkpoints of a run.

    Shows step, metric and size of each, and whether it is on the box, here or both.
    """
    from runner import store
    from runner.domain.quantities import format_size
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
            "" if each.step is None else str(each.step),
            f"{each.metrics[metric]:.4f}" if metric in each.metrics else "",
            format_size(each.size),
            " and ".join(place for place, true in (("box", each.on_box), ("here", each.here)) if true),
            "yes" if each.resumable else "",
        ]
        for each in found
    ]
    columns = ("checkpoint", "step", metric, "size", "where", "resumable")
    print_rows(columns, rows, f"{record.run_id} has no complete checkpoint yet")
