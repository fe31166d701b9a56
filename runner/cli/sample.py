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
    '  gpurun sample --prompt "In the year 1834,"      the latest checkpoint: here if it was fetched, else on the box\n'
    "  gpurun sample --checkpoint best --prompts prompts.txt\n"
    "  gpurun sample --checkpoint step-000500 --interactive --on-box\n"
    "  gpurun sample --base --prompt Hello             the model that training began with",
)
@options.run_argument
@click.option(
    "--checkpoint",
    default="latest",
    show_default=True,
    metavar="NAME",
    shell_complete=options.complete_checkpoint,
    help="latest, best, or a name.",
)
@click.option("--prompt", "given", multiple=True, help="May be given several times; by itself the job's own prompts.")
@click.option(
    "--prompts",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help='One prompt a line, or JSON Lines with "prompt".',
)
@click.option("--interactive", is_flag=True, help="Read prompts from the terminal, one a line.")
@click.option("--base", is_flag=True, help="Ask the model that training began with.")
@click.option("--on-box", is_flag=True, help="Ask on the box even where the checkpoint is here.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True, help="Where."
)
@click.option("--max-new-tokens", type=click.IntRange(1), default=128, show_default=True, help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(0), default=0.8, show_default=True, help="0 is no chance at all.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True, help="Nucleus.")
@click.option("--repetition-penalty", type=click.FloatRange(0, min_open=True), default=1.1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed says the same.")
@options.json_option
def command(
    run: str | None, checkpoint: str, given: tuple[str, ...], file: Path | None, interactive: bool, base: bool,
    on_box: bool, device: str, max_new_tokens: int, temperature: float, top_p: float, repetition_penalty: float,
    seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Prompts in, text out: any checkpoint of a run, while it trains or after it."""
    from runner import store
    from runner.domain.errors import UserError
    from runner.local_model.messages import Sampling
    from runner.workflow.sample import SampleOptions, is_here, read_prompts, sample

    record = store.find_started(run)
    own = record.job.setting("prompts") or []
    prompts = [*given, *(read_prompts(file) if file else [])] or [str(prompt) for prompt in own]
    if not prompts and not interactive:
        raise UserError("there is nothing to ask", hint="Give --prompt TEXT, --prompts FILE or --interactive.")
    sampling = Sampling(max_new_tokens, temperature, top_p, repetition_penalty, seed)
    chosen = SampleOptions(checkpoint, base, device, sampling)
    there = on_box or not is_here(record, checkpoint)
    answers = sample(record, chosen, typed() if interactive else prompts, output.reporter(as_json), on_box=there)
    if as_json:
        from runner.cli.as_document import sample_document

        return output.print_document(sample_document(record, answers, on_box=there))
    for said in answers:
        show(said.prompt, said.text, interactive)


def typed() -> Iterator[str]:
    """Lines of the terminal (or a pipe) until it is closed (Ctrl-D); empty ones are passed over."""
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def show(prompt: str, text: str, interactive: bool) -> None:
    """What a person reads: a model can say anything, so nothing of it reaches the terminal but text."""
    from runner.domain.terminal import clean_lines

    if not interactive:
        click.secho(clean_lines(prompt, 2000), bold=True)
    click.echo(clean_lines(text, 100_000) + "\n")
