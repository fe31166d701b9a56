"""``progress:`` of a job: presets by name, and patterns of the user's own with named groups. The laptop checks it with the same code."""

import re
from typing import Dict, List, Optional, Pattern, Sequence, Tuple

from remote_payload.agent.run.progress.told import EVALUATION, RESERVED, Fields, Told, count, sort

AUTO, OFF = "auto", "off"
PRESETS = ("trainer", "nanogpt", "lightning", "tqdm")
LONGEST = 1000  # characters of a pattern
MOST = 16
_GROUP = re.compile(r"\(\?P<(\w+)>")
_MEANT_AS_STEP = ("iter", "iteration", "steps", "global_step", "it", "batch")


def problem(written: Sequence[str]) -> Optional[Tuple[int, str]]:
    """The first problem of such a list: its entry's number, and what is wrong in words; None where there is none."""
    if not 0 < len(written) <= MOST:
        return 0, "name a preset (%s), a pattern, auto or off; at most %d of them" % (", ".join(PRESETS), MOST)
    for number, entry in enumerate(written):
        alone = entry in (AUTO, OFF) and len(written) > 1
        wrong = "%s stands alone" % entry if alone else _wrong(entry)
        if wrong:
            return number, wrong
    groups = {name for entry in written if not _is_word(entry) for name in re.compile(entry).groupindex}
    if any(_is_word(entry) for entry in written) or "step" in groups:
        return None
    meant = next((name for name in _MEANT_AS_STEP if name in groups), None)
    has = "it has %s" % ", ".join(sorted(groups)) if groups else "it has no named group"
    there = (
        "write (?P<step>…) in place of (?P<%s>…)" % meant
        if meant
        else r"write (?P<step>\d+) where a line has its number"
    )
    return 0, "no pattern has a group called step (%s): %s" % (has, there)


def _is_word(entry: str) -> bool:
    return entry in (AUTO, OFF, *PRESETS)


def _wrong(entry: str) -> Optional[str]:
    if _is_word(entry):
        return None
    if re.fullmatch(r"[A-Za-z_-]{0,32}", entry):
        return "there is no preset %r: there are %s, auto and off; a pattern has a group such as (?P<step>\\d+)" % (
            entry,
            ", ".join(PRESETS),
        )
    if len(entry) > LONGEST:
        return "the pattern has more than %d characters" % LONGEST
    try:
        groups = re.compile(entry).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        at = getattr(error, "pos", None)
        where = "" if at is None else ", at its character %d" % (at + 1)
        return "this is no regular expression: %s%s" % (getattr(error, "msg", None) or error, where)
    taken = sorted(set(groups) & set(RESERVED))
    if taken:
        return "a group cannot be called %s: events have a field of that name" % taken[0]
    return None if groups else "the pattern has no named group such as (?P<step>\\d+) or (?P<loss>\\S+)"


class Patterns:
    """Reads lines by the user's patterns. One that has no step (a total alone, printed once) adds to the lines that have one."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises re.error for what this Python does not understand."""
        self._patterns: List[Pattern[str]] = [re.compile(each) for each in patterns]
        self._kept: Fields = {}
        self._step: Optional[int] = None

    def read(self, line: str) -> Optional[Told]:
        """What the first pattern that finds something in the line tells; None where none does."""
        for pattern in self._patterns:
            found = pattern.search(line)
            told = self._take(found.groupdict()) if found else None
            if told is not None:
                return told
        return None

    def _take(self, groups: Dict[str, Optional[str]]) -> Optional[Told]:
        written = {name: text for name, text in groups.items() if text is not None}
        counted: Fields = {name: count(written.pop(name)) for name in ("step", "total") if name in written}
        told = sort(_ours(written).items())
        if counted.get("total"):
            self._kept["total"] = counted["total"]
        step = counted.get("step")
        if step is not None:
            self._step = int(step)
            return told._replace(step={"step": step, "total": self._kept.get("total"), **told.step})
        if not told.evaluation:
            self._kept.update(told.step)
            return None
        return told._replace(step={"step": self._step} if self._step is not None else {})


def _ours(written: Dict[str, str]) -> Dict[str, str]:
    """``val_loss`` is of an evaluation as ``val/loss`` is; the groups of a pattern are words."""
    return {name if EVALUATION.match(name) else name.lower(): text for name, text in written.items()}
