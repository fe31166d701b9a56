"""What ``gpurun sample`` shows of a prompt: answers, base and tuned side by side on a terminal that is wide enough, or classes."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Sequence

import click

from remote_payload.recipes.answers import Answer, Answered, Classified, Loaded
from runner.domain.terminal import clean, clean_lines

LONGEST, LONGEST_PROMPT = 100_000, 2000  # characters
NARROWEST = 60  # columns of a terminal in which two texts are readable beside each other
MOST_CLASSES = 12


def show(answered: Answered, loaded: Loaded, *, echo: bool) -> None:
    """Prints the prompt (with ``echo``), what came of it and an empty line, without control sequences: a model can generate any text."""
    if echo:
        click.secho(clean_lines(answered.prompt, LONGEST_PROMPT, LONGEST_PROMPT), bold=True)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines_of(answered, loaded, width):
        click.echo(line)
    click.echo()
    sys.stdout.flush()


def lines_of(answered: Answered, loaded: Loaded, width: int | None) -> list[str]:
    """The lines of the answers, or of the classes, for a terminal of that many columns; None: a pipe."""
    if answered.classified:
        return list(_classes(answered.classified, loaded.threshold))
    if width is not None and width >= NARROWEST and any(each.base for each in answered.answers):
        return side_by_side(answered.answers, clean(loaded.model, 40), width)
    return list(_one_below_the_other(answered.answers, clean(loaded.model, 40)))


def side_by_side(answers: Sequence[Answer], model: str, width: int) -> list[str]:
    """Two columns of the same width, the base's and the model's, a row a sample; wide characters count as two."""
    from rich.box import MINIMAL
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=MINIMAL, expand=True, pad_edge=False, show_lines=True)
    for name in ("base", model):
        table.add_column(Text(name), ratio=1, overflow="fold")
    base, tuned = ([each for each in answers if each.base is which] for which in (True, False))
    for one, other in zip(base, tuned, strict=True):
        table.add_row(*(Text(clean_lines(each.text, LONGEST, LONGEST)) for each in (one, other)))
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()[1:-1]]  # between the edges of the box


def _one_below_the_other(answers: Sequence[Answer], model: str) -> Iterator[str]:
    several = answers[-1].sample > 1
    for each in answers:
        if len(answers) > 1:
            names = [("base" if each.base else model)] * answers[0].base + [f"sample {each.sample}"] * several
            yield f"-- {', '.join(names)}"
        yield clean_lines(each.text, LONGEST, LONGEST)


def _classes(found: Classified, threshold: int | None) -> Iterator[str]:
    shares = sorted(found.probabilities.items(), key=lambda pair: -pair[1])
    shown = [(clean(name, 60), share) for name, share in shares[:MOST_CLASSES]]
    widest = max(len(name) for name, _ in shown)
    yield from (f"{name.ljust(widest)}  {share:.4f}" for name, share in shown)
    if len(shares) > len(shown):
        yield f"and {len(shares) - len(shown)} more classes"
    if found.positive is not None:
        word = "positive" if found.positive else "not positive"
        yield f"{word}: {found.positive_probability:.4f} for classes of at least {threshold} (binary_threshold)"
    if found.cut:
        yield "the text is longer than the model takes: its end was not read"
