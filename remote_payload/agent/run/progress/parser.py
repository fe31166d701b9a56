"""From the bytes of a log to what they tell, by the job's ``progress:``. Pure: no clock, no file."""

from typing import Iterable, Iterator, List, NamedTuple, Optional, Protocol, Sequence, Tuple, Union

from remote_payload.agent.run.progress.bars import Bars
from remote_payload.agent.run.progress.dictionaries import Dictionaries
from remote_payload.agent.run.progress.lines import Line, Lines
from remote_payload.agent.run.progress.patterns import AUTO, OFF, PRESETS, Patterns
from remote_payload.agent.run.progress.steps import StepLines
from remote_payload.agent.run.progress.told import Told

QUIET = 500  # lines without the form that told the last step, after which another form may


class Form(Protocol):
    """One way in which programs print their steps."""

    def read(self, line: str) -> Union[Told, List[Told], None]:
        """What a line tells; None where it is not of this form."""


class Seen(NamedTuple):
    """What a line told; the log's offset behind it."""

    told: Told
    end: int


def one_a_step(seen: Iterable[Seen]) -> List[Seen]:
    """What lines that follow each other tell of one step as one: the later one wins, as a bar is drawn again with a newer loss."""
    found: List[Seen] = []
    for each in seen:
        before = found[-1].told if found else Told()
        step, now = before.step.get("step"), each.told
        both = before.evaluation and now.evaluation and before.name != now.name
        if step is None or step != now.step.get("step") or both:
            found.append(each)
            continue
        name = now.name if now.evaluation else before.name
        told = Told({**before.step, **now.step}, {**before.evaluation, **now.evaluation}, name, now.grows)
        found[-1] = Seen(told, each.end)
    return found


class Parser:
    """Reads one log from ``offset`` on. Of several forms in one log the one that tells steps has the word until it falls silent."""

    def __init__(self, written: Sequence[str], offset: int = 0) -> None:
        """Raises re.error for a pattern that this Python does not understand."""
        self.lines = Lines(offset)
        self.dictionaries: Optional[Dictionaries] = None
        self._forms = self._of(written)
        self._speaker: Optional[Form] = None
        self._silent = 0  # lines since it spoke

    def _of(self, written: Sequence[str]) -> List[Form]:
        words = [each for each in written if each in (AUTO, OFF, *PRESETS)]
        own = [each for each in written if each not in words]
        if OFF in words:
            return []
        found: List[Form] = [Patterns(own)] if own else []
        if AUTO in words or "nanogpt" in words:
            found.append(StepLines())
        if AUTO in words or "trainer" in words:
            self.dictionaries = Dictionaries(bars_alone=AUTO not in words)
            found.append(self.dictionaries)
        if "lightning" in words:
            found.append(Bars(told_by_name=True, first=0, epochs_only=True))
        if AUTO in words or "tqdm" in words:
            found.append(Bars(told_by_name=AUTO not in words))
        return found

    def feed(self, data: bytes) -> Iterator[Seen]:
        """What the lines tell that end in ``data``."""
        for line in self.lines.feed(data):
            yield from self._read(line)

    def rest(self) -> Iterator[Seen]:
        """At the end of the log: what its last line tells, and what still waited for another."""
        for line in self.lines.rest():
            yield from self._read(line)
        if self.dictionaries is not None:
            yield from (Seen(told, self.lines.offset) for told in self.dictionaries.rest())

    def _read(self, line: Line) -> Iterator[Seen]:
        self._silent += 1
        form, found = self._first(line.text)
        if form is None or not found:
            return
        if any("step" in each.step for each in found):
            if self._speaker not in (None, form) and self._silent < QUIET:
                return
            self._speaker, self._silent = form, 0
        yield from (Seen(each, line.end) for each in found)

    def _first(self, text: str) -> Tuple[Optional[Form], List[Told]]:
        for form in self._forms:
            found = form.read(text)
            if found is not None:
                return form, found if isinstance(found, list) else [found]
        return None, []
