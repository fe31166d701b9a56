"""The results as a table of metrics by models, and as a Markdown file for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from remote_payload.recipes.evaluated import Column, Confusion, Evaluation
from remote_payload.settings.evaluate import is_more_better
from runner.domain.evaluation.compare import Difference
from runner.domain.evaluation.read import Example
from runner.domain.quantities import format_size
from runner.domain.terminal import clean, without_controls

SHOWN_EXAMPLES = 20
LONGEST_SHOWN = 2000  # characters of a prompt or an answer, from its end
MOST_CLASSES = 30
NAMED = 10  # examples that are named as gained or lost
METRIC = "metric"


def metric_rows(columns: Sequence[Column]) -> list[list[str]]:
    """A row for each metric: its name, then one cell a column. Those with a better end come first."""
    names = dict.fromkeys(name for column in columns for name in column.metrics)
    ordered = sorted(names, key=lambda name: (is_more_better(name) is None, "/" in name))
    return [[name, *(cell(name, column.metrics.get(name)) for column in columns)] for name in ordered]


def cell(metric: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "-"
    if metric.endswith("_bytes"):
        return format_size(int(value))
    if metric.endswith(("_ms", "_seconds", "per_second")) or metric == "bleu":
        return f"{value:,.1f}"
    return f"{value:,.0f}" if value.is_integer() and is_more_better(metric) is None else f"{value:.4f}"


def as_markdown(
    found: Evaluation,
    examples: Mapping[str, Sequence[Example]],
    compared: Iterable[tuple[str, str, Sequence[Difference]]] = (),
) -> str:
    """The whole report as Markdown without HTML; ``examples`` are by the name of their column, ``compared`` (one, other, differences)."""
    parts = [f"# Evaluation on {_plain(found.data)}", f"{found.examples:,} examples, sha256 `{found.sha256}`."]
    parts.append(_table([METRIC, *(column.name for column in found.columns)], metric_rows(found.columns)))
    parts += [part for column in found.columns if column.confusion for part in _confusion(column, column.confusion)]
    parts += _sets(found.columns)
    for one, other, differences in compared:
        parts += [f"## {_plain(one)} and {_plain(other)}, example by example", comparison_table(differences)]
    return "\n\n".join([*parts, *_samples(found.columns, examples)]) + "\n"


def comparison_rows(differences: Sequence[Difference]) -> list[list[str]]:
    """A row for each metric: mean difference, its interval, and how many examples were gained and lost."""
    return [
        [
            each.metric, f"{each.mean:+.4f}", f"{each.low:+.4f} … {each.high:+.4f}",
            f"{len(each.better)}", f"{len(each.worse)}", f"{each.examples - len(each.better) - len(each.worse)}",
        ]
        for each in differences
    ]  # fmt: skip


COMPARISON = (METRIC, "difference", "95 % interval", "better", "worse", "same")


def comparison_table(differences: Sequence[Difference]) -> str:
    """The same as Markdown, with the first examples that were gained and lost."""
    lines = [_table(COMPARISON, comparison_rows(differences))]
    for each in differences:
        for word, ids in (("better", each.better), ("worse", each.worse)):
            if ids:
                more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
                lines.append(f"{each.metric}, {word}: {', '.join(f'`{_plain(name)}`' for name in ids[:NAMED])}{more}")
    return "\n\n".join(lines)


def _confusion(column: Column, found: Confusion) -> list[str]:
    if len(found.labels) > MOST_CLASSES:
        return []
    rows = [[label, *map(str, counts)] for label, counts in zip(found.labels, found.counts, strict=True)]
    head = f"## {_plain(column.name)}: classes (rows) and what they were taken for (columns)"
    return [head, _table(["class", *found.labels], rows)]


def _sets(columns: Sequence[Column]) -> list[str]:
    """One table for each metric with a better end: sets by columns."""
    names = dict.fromkeys(name for column in columns for name in column.sets)
    metrics = dict.fromkeys(
        metric
        for column in columns
        for inside in column.sets.values()
        for metric in inside
        if is_more_better(metric) is not None
    )
    parts = []
    for metric in metrics:
        rows = [[name, *(cell(metric, column.sets.get(name, {}).get(metric)) for column in columns)] for name in names]
        parts += [f"## {metric} by set", _table(["set", *(column.name for column in columns)], rows)]
    return parts


def _samples(columns: Sequence[Column], examples: Mapping[str, Sequence[Example]]) -> list[str]:
    """The first examples with every model's answers; of a classifier the table above says enough."""
    named = [(column.name, examples[column.name]) for column in columns if column.kind != "classifier"]
    named = [(name, rows) for name, rows in named if any(row.answers for row in rows)]
    parts = ["## Answers"] if named else []
    for index, first in enumerate(islice(named[0][1], SHOWN_EXAMPLES) if named else ()):
        parts += [f"### {_plain(first.id)}", _fenced(first.asked)]
        if first.right:
            parts.append("**right**\n\n" + "\n\n".join(map(_fenced, first.right)))
        for name, rows in named:
            if index < len(rows):
                parts.append(f"**{_plain(name)}**\n\n" + "\n\n".join(map(_fenced, rows[index].answers)))
    return parts


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(_plain(each) for each in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text inside a line: no control sequence, no HTML, no end of a cell."""
    return clean(text, 200).replace("\\", "\\\\").replace("|", "\\|").replace("<", "\\<").replace("`", "'")


def _fenced(text: str) -> str:
    """A text of a model or the data as it is, in a block that it cannot close."""
    shown = without_controls(text[-LONGEST_SHOWN:])
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}text\n{shown}\n{fence}"
