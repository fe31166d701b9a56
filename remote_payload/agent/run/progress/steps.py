"""Lines that begin with the number of a step: ``iter 120: loss 2.3112, time 35.12ms, mfu 12.34%`` and ``step 250: train loss 2.1, val loss
2.3`` of nanoGPT, ``step 10/2000 | loss: 9.1 | tok/sec: 15,000`` of nanochat and others like them.
"""

import re
from typing import List, Optional, Tuple

from remote_payload.agent.run.progress.told import CALLED, NUMBER, Fields, Told, count, number, sort

_STEP = re.compile(
    r"(?:^|[\s\]|>-])(?:global[_ ])?(?:iter(?:ation)?s?|steps?)\s*[:=#]?\s*(?P<step>\d[\d,]{0,14})"
    r"(?:\s*(?:/|of)\s*(?P<total>\d[\d,]{0,14}))?\b",
    re.IGNORECASE,
)
_BEGINNING = 120  # characters in which the step stands
_BEHIND = 800  # characters in which its figures stand
_PAIR = re.compile(
    r"(?<![\w/@])(?P<name>[A-Za-z][\w/@]{0,40}(?: [A-Za-z]\w{0,20})?)\s{0,8}[:=]?\s{0,8}"
    r"(?P<value>" + NUMBER + r")\s?(?P<unit>ms\b|s\b|%|it/s|tok/s)?"
)
_BEFORE_UNIT = re.compile(r"(?<![\w.])(?P<value>\d[\d,.]{0,16}) (?P<unit>ms|tok/s|it/s)\b")
_TOTAL = re.compile(
    r"^(?:Overriding: )?(?:max_iters|max_steps|num_iterations|total_steps)\s*=\s*(?P<total>\d[\d_]{0,14})\b"
)
_TIMES = ("time", "dt", "ms", "step_avg", "step_time", "iter_time")


class StepLines:
    """Reads such lines. The total stands in each, or once in the settings that nanoGPT prints (``max_iters = 5000``)."""

    def __init__(self) -> None:
        self._total: Optional[int] = None

    def read(self, line: str) -> Optional[Told]:
        """What a line tells; None for a line without a step and a loss."""
        if "oss" not in line and "OSS" not in line:  # most lines of most logs
            settled = _TOTAL.match(line) if "=" in line else None
            self._total = count(settled.group("total")) if settled else self._total
            return None
        found = _STEP.search(line, 0, _BEGINNING)
        if found is None:
            return None
        told = sort(_pairs(line[found.end() : found.end() + _BEHIND]))
        step, total = count(found.group("step")), count(found.group("total") or "")
        if "loss" not in told.step and not told.evaluation:
            return None
        place: Fields = {"step": step, "total": total or self._total}
        if not told.evaluation:
            return Told({**place, **told.step})
        # One measurement of both parts, not the loss of a step.
        losses = {"train_" + name: value for name, value in told.step.items() if name == "loss"}
        return Told(place, {**told.evaluation, **losses}, told.name, grows=True)


def _pairs(text: str) -> List[Tuple[str, str]]:
    found = []
    for each in _PAIR.finditer(text):
        name, value, unit = each.group("name").strip().lower(), each.group("value"), each.group("unit")
        found.append(_in_our_units(name.replace(" ", "_"), value, unit))
    found += [
        (CALLED.get(each.group("unit"), each.group("unit")), each.group("value"))
        for each in _BEFORE_UNIT.finditer(text)
    ]
    return found


def _in_our_units(name: str, value: str, unit: Optional[str]) -> Tuple[str, str]:
    """Times in milliseconds, shares as fractions."""
    amount = number(value)
    if amount is None:
        return name, value
    if name in _TIMES and unit == "ms":
        return "ms", value
    if name in _TIMES and unit == "s":
        return "seconds_per_step", value
    if name == "mfu" and amount < 0:  # nanoGPT's before it is measured
        return name, ""
    if unit == "%" or (name == "mfu" and amount > 1):
        return name, "%.6g" % (amount / 100)
    return name, value
