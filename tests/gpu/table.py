"""The table of results: a row for each combination that ran, gathered from all processes of the run and written at its end."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import pytest
import torch

GIB = 1 << 30
_PROPERTY = "gpu_row"


@dataclass
class Row:
    """One combination. Bytes; ``room`` is the peak with what the forecast says that CUDA and the allocator take beside it."""

    recipe: str
    model: str
    shape: str
    peak: int
    room: float | None = None
    forecast: int | None = None
    flops: float | None = None  # of matrices, the forecast of the payload beside torch's own count
    attention: float | None = None  # FLOPs of attention, likewise
    step: float | None = None  # waits of an optimizer step
    micro_batch: float | None = None  # waits that each micro-batch adds
    evaluation: float | None = None  # waits a batch
    token: float | None = None  # waits for each token of an answer
    missed: str = ""

    @property
    def ratio(self) -> float | None:
        return self.forecast / self.room if self.forecast and self.room else None


HEAD = (
    f"{'recipe':11}{'model':22}{'shape':58}{'peak':>7}{'fcast':>7}{'ratio':>6}{'FLOPs':>7}{'attn':>6}"
    f"{'step':>6}{'micro':>6}{'eval':>6}{'token':>6}"
)


def line(row: Row) -> str:
    """The row as text; sizes in GiB."""
    figures = (
        (row.peak / GIB, 7, 2), (row.forecast / GIB if row.forecast else None, 7, 2), (row.ratio, 6, 2), (row.flops, 7, 3),
        (row.attention, 6, 2), (row.step, 6, 0), (row.micro_batch, 6, 1), (row.evaluation, 6, 1), (row.token, 6, 1),
    )  # fmt: skip
    shown = "".join(f"{'-' if value is None else f'{value:.{digits}f}':>{width}}" for value, width, digits in figures)
    missed = f"  MISSED: {row.missed}" if row.missed else ""
    return f"{row.recipe:11}{row.model:22}{row.shape:58}{shown}{missed}"


def record(request: pytest.FixtureRequest, row: Row) -> None:
    """Keeps a row for the table."""
    request.node.user_properties.append((_PROPERTY, asdict(row)))  # pytest-xdist carries these to the parent


class Table:
    """The plugin that gathers the rows; ``path`` is the file that they go to, if any."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.rows = path, []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.rows += [Row(**value) for name, value in report.user_properties if name == _PROPERTY]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.rows:
            return
        self.rows.sort(key=lambda row: (row.recipe, row.model, row.shape))
        lines = [HEAD, *map(line, self.rows)]
        terminalreporter.section("GPU")
        for text in lines:
            terminalreporter.line(text)
        if self.path is not None:
            save(self.path, title(), lines)


def title() -> str:
    """Heads a section: the torch, the device, the machine, the day."""
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"== torch {torch.__version__} · {device} · {platform.machine()} · {date.today().isoformat()}"


def save(path: Path, head: str, lines: list[str]) -> None:
    """Writes the section, in the place of an earlier one of the same torch and device."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    sections = {" · ".join(text.split(" · ")[:2]): text for text in old.split("== ") if text.strip()}
    text = "\n".join([head.removeprefix("== "), "", *lines, "", ""])
    sections[" · ".join(text.split(" · ")[:2])] = text
    path.write_text("".join(f"== {sections[name]}" for name in sorted(sections, reverse=True)), encoding="utf-8")
