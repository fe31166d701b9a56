"""What every combination must hold. All of it is measured before the test fails, so that the table is complete."""

from __future__ import annotations

import pytest

from remote_payload.forecast.accuracy import FULL_TRAINING, LORA
from tests.gpu.runs import Done
from tests.gpu.table import Row, record

SUMMED = 2  # waits for what an evaluation sums over several ranks at its end, a copy there and one back
MATRICES = 0.01  # how far FLOPs of matrices may be off


def check(request: pytest.FixtureRequest, row: Row, done: Done) -> None:
    """Keeps the row, then fails naming every bound that it misses."""
    missed = list(misses(row, done))
    row.missed = ", ".join(name for name, _ in missed)
    record(request, row)
    assert not missed, "\n".join(f"{name}: {detail}" for name, detail in missed)


def misses(row: Row, done: Done):
    """Pairs of a short name and the figure with its bound."""
    bound = LORA if "lora" in row.shape else FULL_TRAINING
    if row.ratio is not None and not 1 - bound <= row.ratio <= 1 + bound:
        yield (
            "memory",
            f"the forecast is {row.ratio:.2f} of the peak with context and allocator, {1 - bound:g} to {1 + bound:g} wanted",
        )
    if row.flops is not None and not abs(row.flops - 1) <= MATRICES:
        yield "FLOPs", f"ours of matrices are {row.flops:.3f} of torch's"
    step = done.seen.steps[-1]
    if step.total > 1:
        yield "step", f"{step.total} waits, 1 is allowed: {dict(step.waits)}"
    if step.between > 0:
        yield "micro-batch", f"each adds {step.between:g} waits, none is allowed: {dict(step.waits)}"
    if step.pageable:
        yield "pinned", f"copied from memory that is not pinned: {dict(step.pageable)}"
    for evaluation in done.seen.evaluations:
        if evaluation.total > evaluation.count + (SUMMED if row.shape.startswith("8 ") else 0):
            yield "evaluation", f"{evaluation.each:g} waits a batch, 1 is allowed: {dict(evaluation.waits)}"
            break
    for decoded in done.seen.decoded:
        if decoded.each > 0.5:
            yield "token", f"{decoded.each:g} waits a token of a greedy answer: {dict(decoded.waits)}"
