"""What transformers' Trainer prints: ``{'loss': '2.31', 'grad_norm': '0.74', 'learning_rate': '4.2e-05', 'epoch': '0.42'}``, and its bar.

Such a line has no step. Behind it the bar is drawn again with the very step that it is from (transformers/trainer_callback.py,
``ProgressCallback.on_log``: ``training_bar.write``). Without a bar (``disable_tqdm``) the step follows from the epoch, once a checkpoint's
``trainer_state.json`` has said how many steps an epoch has.
"""

import re
from typing import List, NamedTuple, Optional

from remote_payload.agent.run.progress.bars import Bar, read_bar
from remote_payload.agent.run.progress.told import Fields, Told, sort

_DICTIONARY = re.compile(r"\{('[^{}]{1,3800})\}")
_PAIR = re.compile(r"'([^']{1,64})': '?([^',}\s]{1,32})'?")


class Schedule(NamedTuple):
    """What a ``trainer_state.json`` says of the whole training: ``every``: the steps between two lines."""

    total: int
    steps_per_epoch: float
    every: int


class Dictionaries:
    """Reads such lines and bars. ``bars_alone``: a bar without a name counts before the first line, too."""

    def __init__(self, bars_alone: bool) -> None:
        self._bars_alone = bars_alone
        self._total: Optional[int] = None  # of the training's bar
        self._is_sure = False  # a line has shown which bar it is
        self._waiting: List[Told] = []  # lines whose step the next bar will show
        self._bar_seen = False
        self.schedule: Optional[Schedule] = None

    def read(self, line: str) -> Optional[List[Told]]:
        """What a line tells, with what waited for it; None for other lines."""
        found = _DICTIONARY.search(line) if "{'" in line else None
        if found is not None:
            return self._line(found.group(1))
        bar = read_bar(line)
        if bar is None or bar.name:
            return None
        return self._drawn(bar)

    def rest(self) -> List[Told]:
        """At the end of the log: what no bar came for."""
        waiting, self._waiting = self._waiting, []
        return [self._placed_by_epoch(each) for each in waiting]

    def _line(self, text: str) -> Optional[List[Told]]:
        told = sort(_PAIR.findall(text))
        if "train_runtime" in told.step:  # the last line: its loss is the mean over the training
            return None
        if "epoch" not in told.step or ("loss" not in told.step and not told.evaluation):
            return None
        before = self.rest() if len(self._waiting) > 8 else []
        self._waiting.append(told)
        return before if self._bar_seen else self.rest()

    def _drawn(self, bar: Bar) -> Optional[List[Told]]:
        self._bar_seen = True
        if self._waiting and (self._total in (None, bar.total) or not self._is_sure) and bar.done:
            self._total, self._is_sure = bar.total, self._is_sure or any("loss" in each.step for each in self._waiting)
            place = self._place(bar)
            waiting, self._waiting = self._waiting, []
            return [_at(place, each) for each in waiting]
        if not self._is_sure and self._bars_alone:
            self._total = max(
                self._total or 0, bar.total
            )  # an evaluation has fewer steps than the training, nearly always
        if bar.total != self._total or not bar.done:
            return None
        return [Told(self._place(bar), grows=True)]

    def _place(self, bar: Bar) -> Fields:
        place: Fields = {"step": bar.done, "total": bar.total}
        return place if bar.ms is None else {**place, "ms": bar.ms}

    def _placed_by_epoch(self, told: Told) -> Told:
        """The step of a line by its epoch, where that is certain: the epoch is printed with four digits, the steps between two lines are
        known."""
        epoch, schedule = told.step.get("epoch"), self.schedule
        if schedule is None or not isinstance(epoch, (int, float)):
            return told
        near = epoch * schedule.steps_per_epoch
        step = round(near / schedule.every) * schedule.every
        rounding = 0.5 * 10 ** -_decimals(epoch) * schedule.steps_per_epoch
        if abs(step - near) > rounding + 0.01 or 2 * rounding >= schedule.every or not 0 < step <= schedule.total:
            return told
        return _at({"step": step, "total": schedule.total}, told)


def _at(place: Fields, told: Told) -> Told:
    """An evaluation's epoch, too, is the step's."""
    return told._replace(step={**place, **told.step})


def _decimals(epoch: float) -> int:
    """How many decimals of an epoch were printed at least: older versions print two, and zeros at the end are not seen."""
    return max(2, len(repr(epoch).partition(".")[2]))
