"""Progress bars of tqdm, and those of Lightning, which are tqdm's: ``Epoch 1:  40%|████      | 8/20 [00:00<00:00, 25.1it/s, loss=0.18]``.

A bar counts the steps of its own loop. Where it names its epoch, steps are counted on over the epochs; a total is told where it is
known, so that no time to the end is claimed of a run whose number of epochs nobody has said.
"""

import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from remote_payload.agent.run.progress.told import CALLED, NUMBER, Fields, Told, count, sort

_AMOUNT = r"[\d.,]{1,16}[kMGT]?"
_BAR = re.compile(
    r"^(?:(?P<name>[^|]{1,200}?): )?\s*\d{1,3}%\|[^|]{0,400}\| "
    + r"(?P<done>" + _AMOUNT + r")/(?P<total>" + _AMOUNT + r") \[[\d:?<. days]{1,40}?"
    + r"(?:, +(?P<rate>[\d.?]{1,16})(?P<unit>[^\],]{1,24}))?(?:, (?P<rest>[^\]]{1,2000}))?\]"
)  # fmt: skip
_EPOCH = re.compile(r"^\W*epochs?\W{0,3}(?P<epoch>\d{1,6})(?:\s*(?:/|of)\s*(?P<of>\d{1,6}))?", re.IGNORECASE)
_OUTER = re.compile(r"epochs?\W*", re.IGNORECASE)  # the bar around those of the epochs
_TRAINS = re.compile(r"\b(?:train\w*|steps?|iter\w*)\b", re.IGNORECASE)
# Loops before, between and after the training, by the names that datasets, transformers, huggingface_hub and Lightning give them.
_NO_TRAINING = re.compile(
    r"\b(?:map|filter|flatten|load|download|fetch|generat|token|writ|sav|upload|extract|valid|sanity|eval|test|predict|infer|pack|pars|"
    r"process|preprocess|preparing|preparation|shard|collect|comput|captur|resolving|creating|cast|quantiz)\w*",
    re.IGNORECASE,
)
_UNIT = re.compile(r"(?P<per_second>(?:it|steps?|ba|batch(?:es)?|iters?)/s)|s/(?:it|steps?|ba|batch(?:es)?|iters?)")
_IN_NAME = re.compile(r"([A-Za-z_][\w/]{0,40})\s*[:=]\s*(" + NUMBER + ")")
_OF_LIGHTNING = re.compile(r"^(?:GPU available: |Sanity Checking|Training: +\|)")


class Bar(NamedTuple):
    """One state of a bar: ``ms`` of a step where its rate is known; ``pairs`` are the names and numbers beside and before it."""

    name: str
    done: int
    total: int
    ms: Optional[float]
    pairs: List[Tuple[str, str]]


def read_bar(line: str) -> Optional[Bar]:
    """The bar that the line is; None for other lines, and for bars that count something else than steps."""
    if "%|" not in line:
        return None
    found = _BAR.match(line)
    if found is None:
        return None
    done, total, unit = count(found.group("done")), count(found.group("total")), found.group("unit")
    rhythm = _UNIT.fullmatch(unit) if unit else None
    if done is None or not total or done > total or (unit and rhythm is None):
        return None
    name = (found.group("name") or "").strip()
    pairs = [(key, value) for key, value in _IN_NAME.findall(name)]
    for part in (found.group("rest") or "").split(", "):
        key, is_pair, value = part.partition("=")
        pairs += [(key, value)] if is_pair else []
    return Bar(name, done, total, _ms(found.group("rate"), rhythm), pairs)


def _ms(rate: Optional[str], rhythm: "Optional[re.Match[str]]") -> Optional[float]:
    try:
        pace = float(rate or "")
    except ValueError:  # "?"
        return None
    if rhythm is None or not pace > 0:
        return None
    return round(1000 / pace if rhythm.group("per_second") else 1000 * pace, 3)


class Bars:
    """The training bar among all bars of a log.

    ``told_by_name``: whether a bar without a loss counts too, unless its name says that it is another loop. ``first``: the number of the
    first epoch where the library's is known.
    """

    def __init__(self, told_by_name: bool, first: Optional[int] = None, epochs_only: bool = False) -> None:
        self._told_by_name = told_by_name
        self._first = first
        self._epochs_only = epochs_only
        self._has_loss = False  # bars with a loss were seen: those without are others
        self._last: Dict[str, Bar] = {}  # by what a bar is called
        self._over: Dict[str, int] = {}  # how many loops of that name are over
        self._epochs: Optional[int] = None  # how many there will be, where an outer bar shows it
        self._evaluated: Fields = {}

    def read(self, line: str) -> Optional[Told]:
        """What a line tells; None for a line that is no training bar."""
        if self._first is None and _OF_LIGHTNING.match(line):
            self._first = 0
        bar = read_bar(line)
        if bar is not None and _OUTER.fullmatch(bar.name):
            self._epochs = bar.total
            return None
        if bar is None or not self._is_training(bar) or bar.done == 0:
            return None
        told = sort(bar.pairs)
        step: Fields = {**self._place(bar), **told.step}
        if bar.ms is not None:
            step["ms"] = bar.ms
        new = told.evaluation if told.evaluation != self._evaluated else {}
        self._evaluated = told.evaluation or self._evaluated
        return Told(step, new, told.name, grows=True)

    def _is_training(self, bar: Bar) -> bool:
        if self._epochs_only and not _EPOCH.match(bar.name):
            return False
        has_loss = any(CALLED.get(name.strip().lower(), name.strip().lower()) == "loss" for name, _ in bar.pairs)
        if _NO_TRAINING.search(_IN_NAME.sub("", bar.name)) and not has_loss:
            return False
        named = self._told_by_name or bool(_EPOCH.match(bar.name) or _TRAINS.search(bar.name))
        known = self._has_loss and bar.done > 0 and self._key(bar) not in self._last
        self._has_loss = self._has_loss or has_loss
        return has_loss or (named and not known)

    def _place(self, bar: Bar) -> Fields:
        """Step, total and epoch."""
        key, found = self._key(bar), _EPOCH.match(bar.name)
        before = self._last.get(key)
        self._last = {key: bar} if len(self._last) > 16 else {**self._last, key: bar}
        if found is None:
            if before is not None and before.total == bar.total and bar.done < before.done:
                self._over[key] = self._over.get(key, 0) + 1
            over, epochs = self._over.get(key, 0), self._epochs or 1
            return {"step": over * bar.total + bar.done, "total": epochs * bar.total if over < epochs else None}
        number, of = int(found.group("epoch")), found.group("of")
        if self._first is None or number < self._first:
            self._first = 0 if number == 0 else 1
        epoch = max(0, number - self._first)
        whole = (int(of) + (1 if self._first == 0 and number == int(of) else 0)) * bar.total if of else None
        step = epoch * bar.total + bar.done
        return {"step": step, "total": whole, "epoch": round(epoch + bar.done / bar.total, 4)}

    @staticmethod
    def _key(bar: Bar) -> str:
        return re.sub(r"[\d.,:=/ ]+", "", _IN_NAME.sub("", bar.name))
