"""``gpurun sample``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from runner.cli import options, output


@click.command(
    "sample",
    epilog="\b\nExamples:\n"
    '  gpurun sample --prompt "In the year 1834,"       the newest run\n'
    "  gpurun sample brie:step-000500 --interactive --on-box\n"
    "  gpurun sample brie --prompts prompts.txt --base  the base model beside it\n"
    '  gpurun sample brie --prompt "Hello" --samples 3 --system-prompt @persona.txt\n'
    '  gpurun sample legal --prompt "The licensee shall"\n'
    '  gpurun sample ./adapter --prompt "Hello" --temperature 0.3',
)
@click.argument("target", metavar="[TARGET]", required=False, shell_complete=options.complete_run)
@click.option(
    "--checkpoint",
    default=None,
    metavar="NAME",
    shell_complete=options.complete_checkpoint,
    help="latest, best, or the name of a checkpoint. As RUN:NAME.  [default: latest]",
)
@click.option(
    "--prompt", "given", multiple=True, help="A prompt. May be repeated. Without any, the prompts of the job are used."
)
@click.option(
    "--prompts",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help='One prompt a line, or JSON Lines with "prompt" or "text".',
)
@click.option("--interactive", is_flag=True, help="Read prompts from the terminal or a pipe, one a line.")
@click.option("--base", is_flag=True, help="Show the answers of the model that training began with beside them.")
@click.option(
    "--samples",
    type=options.number(click.IntRange(1)),
    default=1,
    show_default=True,
    help="Answers to each prompt; the second has the next seed, and so on.",
)
@click.option("--on-box", is_flag=True, help="Answer on the run's box even if the checkpoint is on this machine.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True, help="The device."
)
@options.answering_options
@options.seed_option
@options.json_option
def command(
    target: str | None, checkpoint: str | None, given: tuple[str, ...], file: Path | None, interactive: bool, base: bool,
    samples: int, on_box: bool, device: str, seed: int, as_json: bool, **told: object,
) -> None:  # fmt: skip
    """Try a model with a few prompts.

    TARGET is a run (its latest checkpoint, while it trains or after), RUN:CHECKPOINT, a folder with a model or an adapter, or a model of
    the Hub. Without one it is the newest run. What was not fetched is asked on the run's box.

    A language model answers, generated as in its run's own reports unless an option says otherwise. A classifier says how probable each
    class is.
    """
    from remote_payload.settings.sample import SampleSettings
    from runner.cli.sample_display import show
    from runner.domain.errors import UserError
    from runner.workflow.inference.sample import choose, prompts_of, read_prompts, trying

    chosen = choose(target, checkpoint, on_box=on_box)
    prompts = [*given, *(read_prompts(file) if file else [])] or prompts_of(chosen.meant.run)
    if not prompts and not interactive:
        raise UserError("there is no prompt", hint="Give --prompt TEXT, --prompts FILE or --interactive.")
    settings = SampleSettings(base, samples, seed, device)  # type: ignore[arg-type]
    asked = typed() if interactive else prompts
    with trying(chosen, settings, told, asked, output.reporter(as_json)) as tried:
        if as_json:
            from runner.cli.as_document.models import sample_document

            return output.print_document(sample_document(chosen, tried))
        for each in tried.answered:
            show(each, tried.loaded, echo=not interactive)


def typed() -> Iterator[str]:
    """The lines of stdin until it is closed (Ctrl-D), without the empty ones."""
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")
