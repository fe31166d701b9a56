"""What every piece does with its figures: both sides by turns, medians, one line each, and a file with the machine's kind.

    name: ours / by hand = ratio (bound)

A piece is a ``bench_*.py`` with a ``main()``; those that measure by turns write ``rows(quick)`` and hand it to ``run_piece``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
QUICK = "BENCH_QUICK"  # set by `python -m tests.benchmarks --quick` for every piece
FULL_ROUNDS, QUICK_ROUNDS = 7, 3


@dataclass(frozen=True)
class Row:
    """One comparison. ``bound`` is what the ratio may be at most (or at least, where more is better); None is for the record only.

    Where the bound is absolute, ``by_hand`` is the allowed value itself. ``ours`` is None where this machine cannot measure it.
    """

    name: str
    ours: float | None
    by_hand: float
    unit: str
    bound: float | None
    more_is_better: bool = False
    against: str = "by hand"
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if self.ours is None:
            return None
        return self.ours / self.by_hand if self.by_hand else float("inf")

    @property
    def met(self) -> bool | None:
        if self.bound is None or self.ratio is None:
            return None
        return self.ratio >= self.bound if self.more_is_better else self.ratio <= self.bound

    def __str__(self) -> str:
        if self.ours is None or self.ratio is None:
            return f"{self.name}: not measured / {shown(self.by_hand)} {self.unit} {self.against}  [{self.note}]"
        if self.bound is None:
            said = "no bound"
        else:
            said = f"bound {'≥' if self.more_is_better else '≤'} {self.bound:.2f}, {'met' if self.met else 'MISSED'}"
        numbers = f"{shown(self.ours)} / {shown(self.by_hand)} {self.unit} {self.against}"
        return f"{self.name}: {numbers} = {self.ratio:.2f} ({said})" + (f"  [{self.note}]" if self.note else "")


def shown(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rounds(quick: bool) -> int:
    """How often each side is measured: medians of at least seven, unless it is only a look."""
    return QUICK_ROUNDS if quick else FULL_ROUNDS


def by_turns(count: int, *sides: Callable[[], float]) -> list[list[float]]:
    """Calls every side ``count`` times, one after the other in turn; what each gave. One turn before that is not counted."""
    for side in sides:
        side()
    samples: list[list[float]] = [[] for _ in sides]
    for turn in range(count):
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))  # nobody always comes second
        for place in order:
            samples[place].append(sides[place]())
    return samples


def compare(
    name: str,
    ours: Callable[[], float],
    by_hand: Callable[[], float],
    *,
    count: int,
    unit: str,
    bound: float | None,
    more_is_better: bool = False,
    note: str = "",
) -> Row:
    """Both by turns, as medians."""
    first, second = by_turns(count, ours, by_hand)
    return Row(
        name,
        statistics.median(first),
        statistics.median(second),
        unit,
        bound,
        more_is_better,
        note=note,
        samples={"ours": first, "by hand": second},
    )


def seconds(action: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def machine() -> dict[str, str | int]:
    """The machine's kind; nothing that says whose it is."""
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
        model = found[1].strip() if found else model
    except OSError:
        pass
    load = os.getloadavg()[0]
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "load": f"{load:.1f}",
    }


def run_piece(file: str, rows: Callable[[bool], Iterator[Row]]) -> None:
    """A piece's main: measures, prints each line as it is known, writes ``results/<piece>.json`` and ``.txt`` after a full run."""
    parser = argparse.ArgumentParser(description=f"python -m tests.benchmarks.{Path(file).stem}")
    parser.add_argument(
        "--quick", action="store_true", help="smaller, fewer rounds, nothing written: a look, not a result"
    )
    quick = parser.parse_args().quick or os.environ.get(QUICK) == "1"
    done = []
    for row in rows(quick):
        print(row, flush=True)
        done.append(row)
    if not quick:
        write(Path(file).stem.removeprefix("bench_"), done)
    sys.stdout.flush()


def write(piece: str, rows: list[Row]) -> None:
    """The figures of one full run, for people and for programs."""
    RESULTS.mkdir(exist_ok=True)
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine()}
    body = {**about, "rows": [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows]}
    (RESULTS / f"{piece}.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", "utf-8")
    head = f"{about['date']}  " + ", ".join(f"{key}: {value}" for key, value in machine().items())
    (RESULTS / f"{piece}.txt").write_text("\n".join([head, *map(str, rows)]) + "\n", "utf-8")
