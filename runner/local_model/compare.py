"""How far this machine's predictions may differ from the box's, and whether they differ more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runner.local_model.messages import Measured

# Largest difference of a logit, as a share of the largest logit expected (at least 1), by the coarsest of the dtypes
# and by this machine's device. fp32 differs by the order of sums only, a little more on a GPU, whose kernels reorder more
# and may use TF32. bf16 keeps 8 bits and fp16 11, and each layer rounds: measured against fp32 on a CPU, 1.0 % (MiniLM, 6
# layers) to 1.5 % (24 layers of Qwen2's shape) in bf16, 0.1 to 0.9 % in fp16. Wrong weights differ by the logits' own size.
RELATIVE = {
    ("float32", "cpu"): 5e-4,
    ("float32", "mps"): 2e-3,
    ("float32", "cuda"): 2e-3,
    ("float16", "cpu"): 2e-2,
    ("float16", "mps"): 2e-2,
    ("float16", "cuda"): 2e-2,
    ("bfloat16", "cpu"): 5e-2,
    ("bfloat16", "mps"): 5e-2,
    ("bfloat16", "cuda"): 5e-2,
}
COARSENESS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Comparison:
    """This machine's predictions compared with the box's. ``agree`` of ``answers`` labels (or tokens) are the same.

    ``problems`` is empty when all is within ``limit``, the largest difference of a logit that is allowed.
    """

    rows: int
    difference: float
    worst_row: int
    limit: float
    agree: int
    answers: int
    problems: tuple[str, ...]


def allowed_difference(dtypes: Iterable[str], device: str, scale: float, override: float | None = None) -> float:
    """The largest difference of a logit that is allowed; ``override`` is the job's own, for this device.

    ``dtypes`` are all that the weights went through, there and here: the coarsest counts. ``scale`` is the largest
    absolute logit that the box predicted.
    """
    if override is not None:
        return override
    coarsest = max(dtypes, key=COARSENESS.index)
    return RELATIVE[coarsest, device] * max(1.0, scale)


def compare(measured: Measured, allowed: float) -> Comparison:
    """Whether the predictions are close enough, with a sentence for each way in which they are not.

    A label or token may differ only where the two candidates were nearly equal: their logits, here, no further apart than twice
    the allowed difference.
    """
    rows = measured.rows
    worst = max(range(len(rows)), key=lambda index: rows[index].difference)
    problems = []
    if rows[worst].difference > allowed:
        problems.append(
            f"row {worst + 1} differs by {rows[worst].difference:.3g} where {allowed:.3g} is allowed, "
            f"and {sum(row.difference > allowed for row in rows)} of {len(rows)} rows differ too much"
        )
    for index, row in enumerate(rows):
        if row.gap is not None and row.gap > 2 * allowed:
            problems.append(
                f"row {index + 1} is {row.here} here and {row.there} on the box, by a logit of {row.gap:.3g}"
            )
            break
    return Comparison(
        rows=len(rows),
        difference=rows[worst].difference,
        worst_row=worst + 1,
        limit=allowed,
        agree=measured.agree,
        answers=measured.answers,
        problems=tuple(problems),
    )
