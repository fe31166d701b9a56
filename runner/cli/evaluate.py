"""``gpurun evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.cli.table import print_rows
from runner.domain.errors import UserError, WorseThan

if TYPE_CHECKING:
    from runner.domain.evaluation.regression import Tolerance
    from runner.domain.progress import Reporter
    from runner.workflow.inference.evaluate import Asked, Outcome

NARROWEST = 10  # characters of a column on a terminal


@click.command(
    "evaluate",
    epilog="\b\nExamples:\n"
    "  gpurun evaluate brie --data test.jsonl\n"
    "  gpurun evaluate ./adapters/mine --data test.jsonl \\\n"
    "      --set answer_field=expected --set json_answers=true\n"
    "  gpurun evaluate brie:step-000100 org/model --data test.jsonl\n"
    "  gpurun evaluate brie --data prompts.txt --samples 3 \\\n"
    "      --grid temperature=0.3,0.75 system_prompt=a.txt,b.txt\n"
    "  gpurun evaluate NEW --data test.jsonl --against OLD --tolerance 0.01\n"
    "  gpurun evaluate brie --data test.jsonl --host root@remote-gpu",
)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET…", shell_complete=options.complete_target)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="JSON Lines, JSON, parquet, or text with a prompt a line. Or a folder of them.",
)
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the results go; by itself evaluations/DATA-TIME.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting, such as answer_field=expected."
)
@click.option(
    "--grid", multiple=True, metavar="NAME=A,B", help="Ask in each of these ways: temperature=0.3,0.75 and others."
)
@click.option("--samples", type=options.number(click.IntRange(1)), help="Answers to each prompt.")
@click.option("--base/--no-base", default=None, help="Also measure the base model of each adapter. [default: yes]")
@click.option(
    "--against",
    metavar="TARGET or DIR",
    shell_complete=options.complete_target,
    help="Fail (exit 6) where a metric is worse than this model's, or than in these results.",
)
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="[METRIC=]X",
    help="By how much it may be worse; by itself 0.",
)
@options.host_option(required=False)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), help="The device. [default: auto]")
@options.json_option
def command(
    targets: tuple[str, ...], data: Path, folder: Path | None, overrides: tuple[str, ...], grid: tuple[str, ...],
    samples: int | None, base: bool | None, against: str | None, tolerances: tuple[str, ...], host: str | None,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure models on the same data, side by side. Nothing is trained.

    TARGET is a run (its best model), RUN:CHECKPOINT, a folder with a model or an adapter, whoever made it, or a model of the Hub.

    Without --host it runs here, on what was fetched or lies here. With --host it is a run on that box: what a run of the box wrote stays
    there, and the results come home.
    """
    from runner.workflow.inference.evaluate import Asked, evaluate
    from runner.workflow.inference.evaluation_settings import WAY

    cells = [word for each in grid for word in each.split()]
    if grid:  # the words after the first one look like targets
        cells += [word for word in targets if WAY.fullmatch(word)]
        targets = tuple(word for word in targets if not WAY.fullmatch(word))
    if not targets:
        raise UserError("there is no TARGET", hint="Name a run, a folder or a model of the Hub.")
    if tolerances and against is None:
        raise UserError("--tolerance says how much worse than --against a model may be; give --against too")
    asked = Asked(
        targets, data, folder, against, read_tolerance(tolerances), overrides, tuple(cells), samples, device, base
    )
    report = output.reporter(as_json)
    outcome = _on_box(host, asked, report, as_json) if host else evaluate(asked, report)
    if as_json:
        from runner.cli.as_document.evaluation import evaluate_document

        output.print_document(evaluate_document(outcome))
        sys.exit(WorseThan.exit_code if outcome.worse else 0)
    show(outcome)
    raise_for(outcome)


def _on_box(host: str, asked: Asked, report: Reporter, as_json: bool) -> Outcome:
    from runner.cli.following import Hidden, Terminal
    from runner.workflow.inference.evaluate_on_box import evaluate_on

    return evaluate_on(host, asked, report, Hidden() if as_json else Terminal(report))


def read_tolerance(words: tuple[str, ...]) -> Tolerance:
    """``0.01`` for all metrics, ``json_exact=0.02`` for one. Raises UserError."""
    from runner.domain.evaluation.regression import Tolerance

    general, own = 0.0, {}
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(f"--tolerance {word}: expected a number of at least 0, or METRIC=NUMBER")
        if equals:
            own[name] = value
        else:
            general = value
    return Tolerance(general, own)


def show(outcome: Outcome) -> None:
    """Prints the table, the comparisons, and where the files are."""
    from runner.domain.evaluation.tables import COMPARISON, METRIC, comparison_rows, metric_rows

    columns = outcome.results.found.columns
    names = [column.name for column in columns]
    print_rows([METRIC, *names], metric_rows(columns), "nothing was measured", shrink=dict.fromkeys(names, NARROWEST))
    for each in outcome.compared:
        output.print_untrusted(f"{each.one} beside {each.other}, example by example:", "\n")
        print_rows(COMPARISON, comparison_rows(each.differences), "they have no metric in common")
    output.print_untrusted(f"{outcome.results.folder}: evaluation.md, evaluation.json, examples/", "\n")


def raise_for(outcome: Outcome) -> None:
    """Raises WorseThan where a metric is worse than allowed."""
    if not outcome.worse:
        if outcome.against:
            output.print_untrusted(f"not worse than {outcome.against}")
        return
    lines = [
        f"{each.column}: {each.metric} {each.value:.4f}, and {each.against} has {each.other:.4f} ({each.tolerance:g} allowed)"
        for each in outcome.worse
    ]
    raise WorseThan(
        f"worse than {outcome.against}\n" + "\n".join(lines),
        meaning="The results are complete and kept.",
        hint=f"{outcome.results.folder / 'evaluation.md'} names the examples that were lost.",
    )
