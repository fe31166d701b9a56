"""Blocks as HTML. Every text passes ``shown``: nothing of it can become a tag, an attribute or a script."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence

from runner.report.blocks import Block, Chart, Charts, Facts, Note, Page, Section, Table, Text

Hide = Callable[[str], str]


class Writer:
    """Writes sections, and gathers the charts that the script draws: the number in a figure is the place in ``charts``.

    ``hide`` takes secrets out of a text.
    """

    def __init__(self, hide: Hide) -> None:
        self._hide = hide
        self.charts: list[Chart] = []

    def shown(self, text: str) -> str:
        """A text that HTML shows as it is, without secrets."""
        return html.escape(self._hide(text).encode("utf-8", "replace").decode("utf-8"))

    def body(self, page: Page) -> str:
        parts = [f"<header><h1>{self.shown(page.title)}</h1><p>{self.shown(page.about)}</p></header>"]
        return "\n".join([*parts, *(self._section(each) for each in page.sections if each.blocks)])

    def _section(self, section: Section) -> str:
        blocks = "\n".join(self._block(block) for block in section.blocks)
        title = self.shown(section.title)
        if section.folded:
            return f"<section><details><summary><h2>{title}</h2></summary>\n{blocks}\n</details></section>"
        return f"<section><h2>{title}</h2>\n{blocks}\n</section>"

    def _block(self, block: Block) -> str:
        if isinstance(block, Facts):
            rows = (f"<dt>{self.shown(name)}</dt><dd>{self.shown(value)}</dd>" for name, value in block.rows if value)
            return f"<dl>{''.join(rows)}</dl>"
        if isinstance(block, Table):
            return self._table(block)
        if isinstance(block, Note):
            return f'<p class="note {block.tone}">{self.shown(block.text)}</p>'
        if isinstance(block, Text):
            return f"<pre>{self.shown(block.text)}</pre>"
        return "".join(self._figures(block))

    def _table(self, table: Table) -> str:
        head = "".join(f"<th>{self.shown(name)}</th>" for name in table.head)
        rows = "".join(f"<tr>{self._cells(table, number, row)}</tr>" for number, row in enumerate(table.rows))
        about = f"<p>{self.shown(table.about)}</p>" if table.about else ""
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{about}'

    def _cells(self, table: Table, number: int, row: Sequence[str]) -> str:
        best = ' class="best"'
        return "".join(
            f"<td{best if (number, column) in table.marked else ''}>{self.shown(cell)}</td>"
            for column, cell in enumerate(row)
        )

    def _figures(self, block: Charts) -> Iterator[str]:
        yield '<div class="charts">'
        for chart in block.charts:
            unit = f" <small>{self.shown(chart.unit)}</small>" if chart.unit else ""
            yield f'<figure data-chart="{len(self.charts)}"><figcaption>{self.shown(chart.title)}{unit}</figcaption></figure>'
            self.charts.append(chart)
        yield "</div>"
