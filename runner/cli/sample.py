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
    '  gpurun sample --prompt "In the year 1834,"\n'
    "  gpurun sample --checkpoint best --prompts prompts.txt\n"
    "  gpurun sample --checkpoint step-000500 --interactive --on-box\n"
    "  gpurun sample --base --prompt Hello       the model that training began with",
)
@options.run_argument
@click.option(
    "--checkpoint",
    default="latest",
    show_default=True,
    metavar="NAME",
    shell_complete=options.complete_checkpoint,
    help="latest, best, or the name of a checkpoint.",
)
@click.option(
    "--prompt", "given", multiple=True, help="A prompt. May be repeated. Without any, the prompts of the job are used."
)
@click.option(
    "--prompts",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help='One prompt a line, or JSON Lines with "prompt".',
)
@click.option("--interactive", is_flag=True, help="Read prompts from the terminal, one a line.")
@click.option("--base", is_flag=True, help="Use the model that training began with.")
@click.option("--on-box", is_flag=True, help="Generate on the box even if the checkpoint is on this machine.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True, help="The device."
)
@click.option(
    "--max-new-tokens",
    type=options.number(click.IntRange(1)),
    default=128,
    show_default=True,
    help="The most tokens of an answer.",
)
@click.option(
    "--temperature",
    type=options.number(click.FloatRange(0)),
    default=0.8,
    show_default=True,
    help="0 always takes the most likely token.",
)
@click.option(
    "--top-p",
    type=options.number(click.FloatRange(0, 1, min_open=True)),
    default=0.95,
    show_default=True,
    help="Choose among the most likely tokens of this probability.",
)
@click.option(
    "--repetition-penalty",
    type=options.number(click.FloatRange(0, min_open=True)),
    default=1.1,
    show_default=True,
    help="1 is none.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same text.")
@options.json_option
def command(
    run: str | None, checkpoint: str, given: tuple[str, ...], file: Path | None, interactive: bool, base: bool,
    on_box: bool, device: str, max_new_tokens: int, temperature: float, top_p: float, repetition_penalty: float,
    seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Generate text with a checkpoint of a run, while it trains or after it.

    The checkpoint runs on this machine if it was fetched, otherwise on the box.
    """
    from runner import store
    from runner.domain.errors import UserError
    from runner.local_model.messages import Sampling
    from runner.workflow.inference.sample import SampleOptions, is_here, read_prompts, sample

    record = store.find_started(run)
    own = record.job.setting("prompts") or []
    prompts = [*given, *(read_prompts(file) if file else [])] or [str(prompt) for prompt in own]
    if not prompts and not interactive:
        raise UserError("there is no prompt", hint="Give --prompt TEXT, --prompts FILE or --interactive.")
    sampling = Sampling(max_new_tokens, temperature, top_p, repetition_penalty, seed)
    chosen = SampleOptions(checkpoint, base, device, sampling)
    there = on_box or not is_here(record, checkpoint)
    answers = sample(record, chosen, typed() if interactive else prompts, output.reporter(as_json), on_box=there)
    if as_json:
        from runner.cli.as_document.models import sample_document

        return output.print_document(sample_document(record, answers, on_box=there))
    for answer in answers:
        show(answer.prompt, answer.text, interactive)


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


def show(prompt: str, text: str, interactive: bool) -> None:
    """Prints an answer for a person, without control sequences: a model can generate any text."""
    from runner.domain.terminal import clean_lines

    if not interactive:
        click.secho(clean_lines(prompt, 2000), bold=True)
    click.echo(clean_lines(text, 100_000) + "\n")
