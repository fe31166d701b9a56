"""``gpurun predict``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.workflow.inference.predict import Prediction


@click.command(
    "predict",
    epilog="\b\nExamples:\n"
    "  gpurun predict legal --input texts.jsonl --output scores.jsonl\n"
    "  gpurun predict legal:step-000100 --input pages --output s.parquet --keep url\n"
    "  gpurun predict ./adapter --input q.csv --field question --output a.csv\n"
    "  gpurun predict Qwen/Qwen2.5-0.5B --input p.jsonl --output a.jsonl",
)
@click.argument("target", metavar="TARGET", shell_complete=options.complete_target)
@click.option(
    "--input", "files", multiple=True, required=True, metavar="FILE",
    help="JSON Lines, CSV or parquet; a folder or a quoted glob of them. May be repeated.",
)  # fmt: skip
@click.option("--output", "written", required=True, metavar="FILE", help="The file to write: .jsonl, .csv or .parquet.")
@click.option(
    "--field", metavar="NAME", help="The field to predict: by itself text; of a language model messages or prompt."
)
@click.option("--keep", multiple=True, metavar="NAME", help="A field of the input to write too. May be repeated.")
@click.option(
    "--bad-rows",
    type=click.Choice(["stop", "mark"]),
    default="stop",
    show_default=True,
    help="A row that cannot be used ends the command, or is written with the reason as error.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True, help="The device."
)
@options.answering_options
@options.seed_option
@options.host_option(required=False)
@click.option(
    "--gpus", type=options.number(click.IntRange(1)), default=1, show_default=True, help="With --host: how many GPUs."
)
@click.option("--dry-run", is_flag=True, help="Only read the rows, and say which cannot be used.")
@options.json_option
def command(
    target: str, files: tuple[str, ...], written: str, field: str | None, keep: tuple[str, ...], bad_rows: str, device: str,
    seed: int, host: str | None, gpus: int, dry_run: bool, as_json: bool, **told: object,
) -> None:  # fmt: skip
    """Write a model's prediction for each row of files of any size.

    TARGET is a fetched run, RUN:CHECKPOINT, a folder with a model or an adapter, or a model of the Hub. A classifier writes classes and
    probabilities, a language model answers, generated as the run's job says unless an option says otherwise. A command that was ended
    goes on where it stopped when it is typed again. With --host it is a run on that box.
    """
    from remote_payload.settings.predict import PredictSettings
    from runner.domain.errors import UserError
    from runner.workflow.inference.predict import predict

    settings = PredictSettings(list(files), written, field, list(keep), bad_rows, seed=seed)  # type: ignore[arg-type]
    report = output.reporter(as_json)
    if host and dry_run:
        raise UserError("--dry-run reads the rows on this machine: leave --host out")
    if host:
        from runner.cli.following import Hidden, Terminal
        from runner.workflow.inference.predict_on_box import predict_on

        display = Hidden() if as_json else Terminal(report)
        found = predict_on(host, target, settings, told, report, display, device=device, gpus=gpus)
    else:
        found = predict(target, settings, told, report, device=device, dry_run=dry_run)
    if as_json:
        from runner.cli.as_document.models import predict_document

        return output.print_document(predict_document(found, dry_run=dry_run))
    for line in _lines(found, dry_run=dry_run):
        output.print_untrusted(line)


def _lines(found: Prediction, *, dry_run: bool) -> list[str]:
    """What was predicted, for a person."""
    from runner.domain.quantities import format_duration

    result = found.result
    if dry_run:
        usable = f"{result.rows:,} rows, {result.rows - result.bad:,} of them can be used; nothing was written"
        return [usable, *result.problems]
    lines = [f"{result.rows:,} rows → {found.settings.output}"]
    if result.predicted:
        speed = result.predicted / max(result.seconds, 1e-9)
        taken = format_duration(result.seconds)
        lines.append(f"{result.predicted:,} of them now, in {taken} on {result.device}: {speed:,.0f} rows/s")
    most = sorted(result.counts.items(), key=lambda item: -item[1])[:12]
    lines += [" / ".join(f"{count:,} {label}" for label, count in most)] if most else []
    lines += [f"{result.cut:,} texts were longer than the model takes, and cut"] * bool(result.cut)
    return lines + [f"{result.bad:,} rows could not be predicted: their field error says why"] * bool(result.bad)
