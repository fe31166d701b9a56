"""``gpurun smoke-test``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.domain.errors import SmokeTestFailed

SHOWN = 3  # texts of the box's inputs

if TYPE_CHECKING:
    from runner.local_model.report import SmokeReport


@click.command(
    "smoke-test",
    epilog="\b\nExamples:\n"
    "  gpurun smoke-test                    the latest run, on the best device\n"
    "  gpurun smoke-test --device mps\n"
    "  gpurun smoke-test ./models/best --inputs texts.jsonl",
)
@click.argument("target", required=False, metavar="[RUN or DIR]", shell_complete=options.complete_target)
@click.option(
    "--device",
    type=click.Choice(["auto", "mps", "cuda", "cpu"]),
    default="auto",
    show_default=True,
    help="The device for the test. It fails if this machine has no such device.",
)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help='Predict these instead: JSON Lines with "text" (classifier) or "prompt". Each answer is printed then, and nothing compared.',
)
@options.json_option
def command(target: str | None, device: str, inputs: Path | None, as_json: bool) -> None:
    """Load the fetched model on this machine, and compare it with the box.

    The model predicts the inputs that it predicted on the box. Labels and logits are compared. Exits with 6 if they differ.
    """
    from runner.workflow.inference.smoke import raise_for, smoke_test, target_of

    folder, run = target_of(target)
    reports = smoke_test(folder, output.reporter(as_json), run=run, device=device, inputs=inputs)
    if as_json:
        from runner.cli.as_document.models import smoke_test_document

        document = smoke_test_document(run, reports)
        output.print_document(document)
        sys.exit(0 if document["passed"] else SmokeTestFailed.exit_code)
    for report in reports:
        show(report, own=inputs is not None)
    raise_for(reports)


def show(report: SmokeReport, *, own: bool = False) -> None:
    """Prints what was measured of one model, for a person; where the inputs are his ``own``, each row's answer."""
    from runner.domain.quantities import format_duration, format_size

    device = report.device if report.device_name == report.device else f"{report.device} ({report.device_name})"
    speed = f"{report.samples_per_second:.3g} samples/s"
    if report.tokens_per_second is not None:
        speed += f", {report.tokens_per_second:.3g} tokens/s"
    lines = [
        f"{report.folder}",
        f"{device}, {report.dtype}: loaded in {format_duration(report.load_seconds)}, {speed}, {format_size(report.peak_memory)} at most",
    ]
    if report.counts is not None:
        counted = " / ".join(f"{count} {label}" for label, count in report.counts.items())
        lines.append(f"{report.samples} samples: {counted}")
    lines += [f"{row}: {each.label} {each.probability:.3f}" for row, each in enumerate(report.labelled, 1)]
    lines += [f"{row}: … {text}" for row, text in enumerate(report.texts[: None if own else SHOWN], 1)]
    for line in [*lines, *_verdict(report)]:
        output.print_untrusted(line)


def _verdict(report: SmokeReport) -> list[str]:
    found = report.comparison
    if found is None:
        return ["loads and answers; there was nothing of the box's to compare with"]
    what = "tokens" if report.kind == "causal_lm" else "labels"
    lines = [
        f"largest difference of a logit {found.difference:.2g} (row {found.worst_row}), {found.limit:.2g} allowed",
        f"{found.agree} of {found.answers} {what} as on the box",
    ]
    return [*lines, "passed" if report.passed else "FAILED"]
