"""``gpurun compare``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runner.cli import audience, options, output
from runner.cli.side_by_side import Line, letter, side_by_side

if TYPE_CHECKING:
    from runner.domain.comparison.compare import Comparison
    from runner.domain.comparison.metrics import Measured
    from runner.domain.comparison.rows import Row
    from runner.domain.comparison.trees import File, FileRow
    from runner.workflow.comparing.compare import Compared

SHORT = 40  # lines of a diff that is shown without being asked for
FILES = 30  # files that are shown
DIGEST = 12  # characters of a digest that are shown


@click.command(
    "compare",
    epilog="\b\nExamples:\n  gpurun compare 7f3a 91c2          two runs: what differs, and by how much\n"
    "  gpurun compare legal brie --diff  with all lines of code that differ\n"
    "  gpurun compare mayors             the runs of a sweep, a column each\n"
    "  gpurun compare A B C --all        what is the same too",
)
@click.argument("names", nargs=-1, required=True, metavar="RUN…", shell_complete=options.complete_run)
@click.option("--all", "everything", is_flag=True, help="Also show what is the same, and every file.")
@click.option("--diff", "with_diff", is_flag=True, help=f"Show all lines of code that differ, not only up to {SHORT}.")
@options.json_option
def command(names: tuple[str, ...], everything: bool, with_diff: bool, as_json: bool) -> None:
    """Show in what runs differ: settings, code, data, environment, what they measured, time and cost.

    A setting that is not given and one that is given as its default are the same. RUN may be a sweep: then each of its runs.

    It works on what is on this machine. Boxes are asked about runs that go on, and about results that are not here.
    """
    from runner.workflow.comparing.compare import compare_runs
    from runner.workflow.sweeping.find import runs_of

    found = compare_runs(runs_of(names), output.reporter(as_json), everything=everything)
    diff = found.diff if found.diff is not None and (with_diff or len(found.diff) <= SHORT) else None
    if as_json:
        from runner.cli.as_document.comparison import compare_document

        return output.print_document(compare_document(found, diff))
    _show(found, diff, everything)


def _show(found: Compared, diff: Sequence[str] | None, everything: bool) -> None:
    from runner.cli.table import print_rows
    from runner.workflow.observing.listing import age_of, describe, short_host

    heads = [letter(place) for place in range(len(found.runs))]
    rows = [
        [head, run.run_id, describe(run), short_host(run), age_of(run)]
        for head, run in zip(heads, found.runs, strict=True)
    ]
    print_rows(("", "run", "status", "host", "as of"), rows, "", shrink={"status": 12}, drop=("as of", "host"))
    compared = found.found
    shown = [
        _section("settings", _rows(heads, compared.settings)),
        _section("code", _code(heads, compared, everything), _diff(found.diff, diff)),
        _section("data", _rows(heads, compared.data), _data_files(heads, compared, everything)),
        _section("environment", _rows(heads, compared.environment)),
        _section("metrics", _lines(heads, [_measured(row) for row in compared.metrics])),
        _section("time and cost", _rows(heads, compared.course)),
    ]
    if any(row.best for row in compared.metrics):
        shown.append(["", "* the better value" if len(heads) == 2 else "* the best value"])
    if not any(shown):
        shown.append(["", "no difference in what is known of them here"])
    for line in (line for section in shown for line in section):
        click.echo(line)
    for note in found.notes:
        output.print_untrusted(f"note: {note}", err=True)
    for reason in found.unreachable:
        output.print_untrusted(f"warning: {reason}; its runs are shown as they were last seen", err=True)


def _section(title: str, *blocks: list[str]) -> list[str]:
    """A title and what is below it; nothing where nothing is."""
    lines = [line for block in blocks for line in block]
    return ["", click.style(title, bold=True), *lines] if lines else []


def _rows(heads: list[str], rows: Sequence[Row]) -> list[str]:
    return _lines(heads, [_line(row) for row in rows])


def _lines(heads: list[str], lines: Sequence[Line]) -> list[str]:
    """Of two runs the difference has a column, where there is one."""
    others = ["difference"] if len(heads) == 2 and any(line.cells[-1] for line in lines) else []
    cells = [Line(line.name, line.cells[: len(heads) + len(others)]) for line in lines]
    return side_by_side([*heads, *others], cells, len(heads), audience.columns())


def _code(heads: list[str], compared: Comparison, everything: bool) -> list[str]:
    """The files; the digests only where they say more."""
    files = _files(heads, compared.code_files, everything)
    return [*(_rows(heads, compared.code) if everything or not files else []), *files]


def _line(row: Row) -> Line:
    from runner.domain.terminal import clean

    name = clean(row.name)
    cells, by = [_value(name, value) for value in row.values], _difference(name, row.values[0], row.values[-1])
    if "." not in name:  # else it is a field of the job file
        name = name.removesuffix("_seconds").removesuffix("_bytes").replace("_", " ")
    return Line(name, (*cells, by))


def _measured(row: Measured) -> Line:
    from runner.domain.terminal import clean

    cells = [
        "-" if value is None else f"{value:.4g}{'*' * (place in row.best)}" for place, value in enumerate(row.values)
    ]
    name = clean(f"{row.evaluation} {row.metric}".strip())
    return Line(name, (*cells, _difference(name, row.values[0], row.values[-1])))


def _value(name: str, value: object) -> str:
    """A value as people read it, on one line."""
    from runner.domain.flow import flow
    from runner.domain.quantities import format_duration, format_size
    from runner.domain.terminal import clean

    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_bytes"):
            return format_size(value)
        if name.endswith("_seconds"):
            return format_duration(value)
        return f"{value:.2f}" if name == "cost" else f"{value:,.0f}" if name == "tokens_per_second" else _number(value)
    if _is_digest(value):
        return str(value).rpartition("-")[2][:DIGEST]
    text = flow(value) if not isinstance(value, str) or "\n" in value else value
    return clean(text, output.LONGEST_LINE)


def _number(value: float) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _is_digest(value: object) -> bool:
    text = value.rpartition("-")[2] if isinstance(value, str) else ""
    return len(text) >= 32 and set(text) <= set("0123456789abcdef")


def _difference(name: str, first: object, last: object) -> str:
    """From the first to the last of two numbers, with its sign; empty for what is no number."""
    from runner.domain.quantities import format_duration, format_size

    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in (first, last)):
        return ""
    assert isinstance(first, int | float) and isinstance(last, int | float)
    by = last - first
    if name.endswith("_bytes"):
        return f"{'-' if by < 0 else '+'}{format_size(abs(by))}"
    if name.endswith("_seconds"):
        return f"{'-' if by < 0 else '+'}{format_duration(abs(by))}"
    return f"{by:+.4g}" if by else ""


def _files(heads: list[str], rows: Sequence[FileRow] | None, everything: bool) -> list[str]:
    """Of two runs what became of each file, of more the beginning of its digest in each."""
    from runner.domain.terminal import clean

    shown = list(rows or ())
    left = 0 if everything else max(0, len(shown) - FILES)
    columns = ["", "size"] if len(heads) == 2 else heads
    lines = [Line(clean(row.path), _file_cells(row, len(heads))) for row in shown[: len(shown) - left]]
    found = side_by_side(columns, lines, 0 if len(heads) == 2 else len(heads), audience.columns()) if lines else []
    return [*found, f"  … {left} more files: --all"] if left else found


def _data_files(heads: list[str], compared: Comparison, everything: bool) -> list[str]:
    if compared.data_files == () and any(row.differs for row in compared.data):
        return ["  the files that training read are the same, by content"]
    return _files(heads, compared.data_files, everything)


def _file_cells(row: FileRow, runs: int) -> tuple[str, ...]:
    from runner.domain.quantities import format_size

    if runs > 2:
        return tuple(_digest(file) for file in row.files)
    before, after = (format_size(file.size) if file else "" for file in row.files)
    return row.change, before or after if not (before and after) or before == after else f"{before} → {after}"


def _digest(file: File | None) -> str:
    return "-" if file is None else file.content[:8]


def _diff(lines: Sequence[str] | None, shown: Sequence[str] | None) -> list[str]:
    from runner.domain.terminal import without_controls

    if not lines:
        return []
    if shown is None:
        return [f"  {len(lines):,} lines of difference: --diff"]
    colours = {"+": "green", "-": "red", "@": "cyan"}
    return ["", *(click.style(without_controls(line), fg=colours.get(line[:1])) for line in shown)]
