"""A run's figures in words, each with its unit: for ``status`` and ``watch``. Pure; what a box wrote is checked value by value."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runner.domain.quantities import format_duration
from runner.domain.terminal import clean

if TYPE_CHECKING:
    from runner.domain.answers.status import Status
    from runner.workflow.observing.status import Seen

GIB = 1 << 30
LARGEST = 1e15  # a number beyond is no step, no byte and no watt: it is left out


def number(value: object) -> float | None:
    """A finite number of a reasonable size; None for anything else that may stand in an event."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        return None
    return float(value) if math.isfinite(value) else None


def progress(step: object) -> str:
    """``46 of 68 steps (68 %), epoch 1.35``; empty where no step is known."""
    of = step if isinstance(step, Mapping) else {}
    done, total, epoch = number(of.get("step")), number(of.get("total")), number(of.get("epoch"))
    if done is None:
        return ""
    known = f" of {total:,.0f} steps ({done / total:.0%})".replace("%", " %") if total and total >= 1 else ""
    return (f"{done:,.0f}{known}" if known else f"step {done:,.0f}") + (
        f", epoch {epoch:.2f}" if epoch is not None else ""
    )


def pace(step: object) -> str:
    """``573 ms a step, 1,904 tokens/s, MFU 41 %, GPU memory up to 61.2 GiB``"""
    of = step if isinstance(step, Mapping) else {}
    ms, tokens, mfu, memory = (number(of.get(name)) for name in ("ms", "tokens_per_second", "mfu", "memory"))
    parts = [
        _step_time(ms) if ms is not None else "",
        f"{tokens:,.0f} tokens/s" if tokens is not None else "",
        f"MFU {100 * mfu:.0f} %" if mfu is not None else "",
        f"GPU memory up to {memory / GIB:.1f} GiB" if memory else "",
    ]
    return ", ".join(part for part in parts if part)


def _step_time(ms: float) -> str:
    return f"{ms:.0f} ms a step" if ms < 10_000 else f"{format_duration(ms / 1000)} a step"


def training(step: object) -> str:
    """``loss 0.0046, learning rate 2.8e-04, gradient norm 0.05``"""
    names = {"loss": "loss", "lr": "learning rate", "grad_norm": "gradient norm"}
    return metrics({shown: step.get(name) for name, shown in names.items()} if isinstance(step, Mapping) else {})


def evaluation(event: object) -> str:
    """``validation after step 46: accuracy 0.9831, macro_f1 0.9831``"""
    of = event if isinstance(event, Mapping) else {}
    figures = metrics(of.get("metrics"))
    step = number(of.get("step"))
    after = f" after step {step:,.0f}" if step is not None else ""
    return f"{clean(of.get('name') or 'evaluation', 60)}{after}: {figures}" if figures else ""


def metrics(values: object) -> str:
    """Names with their numbers, four digits each."""
    items = values.items() if isinstance(values, Mapping) else ()
    return ", ".join(f"{clean(name, 60)} {known:.4g}" for name, value in items if (known := number(value)) is not None)


def gpus(status: Status) -> list[tuple[int, str]]:
    """For each GPU that the run has its index and ``97 %   61.2 of 80.0 GiB   64 °C   412 W``.

    Where it is not known which it has, for each of the box.
    """
    sample = status.progress.get("hardware") or {}
    listed = sample.get("gpus")
    by_index = {each["index"]: each for each in (listed if isinstance(listed, list) else ()) if _has_index(each)}
    wanted = [index for index in status.gpus if index in by_index] or sorted(by_index)
    return [(index, gpu(by_index[index])) for index in wanted]


def _has_index(each: object) -> bool:
    index = each.get("index") if isinstance(each, dict) else None
    return isinstance(index, int) and not isinstance(index, bool) and 0 <= index < 1024


def gpu(sample: Mapping[str, object]) -> str:
    """One GPU's sample, in columns that stand below each other. A figure that the driver does not tell is left out."""
    load, used, total, heat, power = (
        number(sample.get(name)) for name in ("utilisation", "memory_used", "memory_total", "temperature", "power")
    )
    parts = [
        f"{load:3.0f} %" if load is not None else "",
        _used(used, total) if used is not None else "",
        f"{heat:3.0f} °C" if heat is not None else "",
        f"{power:4.0f} W" if power is not None else "",
    ]
    return "  ".join(part for part in parts if part)


def _used(used: float, total: float | None) -> str:
    return f"{used / GIB:5.1f} of {total / GIB:.1f} GiB" if total else f"{used / GIB:5.1f} GiB"


def memory(status: Status) -> str:
    """``12.0 of 64.0 GiB``: the main memory of the box or container."""
    used, total = _pair(status, "ram", "used", "total")
    return _used(used, total).strip() if used is not None else ""


def processors(status: Status) -> str:
    """``34 % of 16``"""
    sample = status.progress.get("hardware") or {}
    load, count = number(sample.get("cpu")), number(sample.get("cpus"))
    return "" if load is None or not count else f"{load:.0f} % of {count:.0f}"


def disk(status: Status) -> str:
    """``69.1 of 270.6 GB free``"""
    free, total = _pair(status, "disk", "free", "total")
    return (
        ""
        if free is None
        else f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        if total
        else f"{free / 1e9:.1f} GB free"
    )


def _pair(status: Status, of: str, first: str, second: str) -> tuple[float | None, float | None]:
    pair = (status.progress.get("hardware") or {}).get(of)
    return (number(pair.get(first)), number(pair.get(second))) if isinstance(pair, dict) else (None, None)


def left(seen: Seen) -> str:
    """``13s, until about 14:05:12``, by this machine's clock; empty where it cannot be foreseen."""
    if seen.eta is None or seen.at is None:
        return ""
    return f"{format_duration(seen.eta)}, until about {clock(seen.at + seen.eta)}"


def clock(moment: float) -> str:
    """A time of this machine's day, with the date where it is not within a day of now."""
    form = "%H:%M" if abs(moment - time.time()) < 86400 else "%Y-%m-%d %H:%M"
    try:
        return time.strftime(form, time.localtime(moment))
    except (OverflowError, OSError, ValueError):
        return "?"


def cost(seen: Seen) -> str:
    """``0.12 so far, about 0.18 at the end``; the sum alone once it is over."""
    if seen.cost is None:
        return ""
    if seen.status is None or seen.status.finished:
        return f"{seen.cost:.2f}"
    return f"{seen.cost:.2f} so far" + (
        f", about {seen.cost_at_end:.2f} at the end" if seen.cost_at_end is not None else ""
    )


def second(moment: float) -> str:
    """A time of this machine's day, to the second."""
    return time.strftime("%H:%M:%S", time.localtime(moment))
