"""What a recipe did on the device, step by step: peak of memory and waits of each step, evaluation and answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from remote_payload.train.evaluation import generation
from remote_payload.train.loop.fitting import FittingSteps
from remote_payload.train.loop.loop import Loop
from remote_payload.train.loop.step import MicroBatch, Stepper
from remote_payload.train.model import greedy_decoding
from tests.gpu.replaced import method_replaced, replaced
from tests.gpu.waits import Waits


class Device(Protocol):
    """The GPU under test: real or null."""

    waits: Waits

    @property
    def peak(self) -> int:
        """Most bytes that tensors held since ``restart_peak``."""

    def restart_peak(self) -> None: ...


@dataclass
class Work:
    """Something that was done: bytes of the peak, waits by line, copies from memory that is not pinned, micro-batches or tokens."""

    peak: int
    waits: Counter[str]
    pageable: Counter[str]
    count: int
    between: float = 0.0  # waits a micro-batch, counted from the first to the last of them

    @property
    def total(self) -> int:
        return sum(self.waits.values())

    @property
    def each(self) -> float:
        return self.total / max(self.count, 1)


@dataclass
class Observed:
    """All that was done, in order."""

    probes: list[Work] = field(default_factory=list)
    steps: list[Work] = field(default_factory=list)
    evaluations: list[Work] = field(default_factory=list)
    generated: list[Work] = field(default_factory=list)  # batches of answers; counted in tokens of the longest
    decoded: list[Work] = field(default_factory=list)  # greedily; counted in tokens


@contextmanager
def observing(device: Device) -> Iterator[Observed]:
    """Inside, what recipes do is noted. Nothing of it is changed."""
    seen, marks = Observed(), []
    to, step, find, evaluate = MicroBatch.to, Stepper.step, FittingSteps.find, Loop.evaluate
    generate, decode = generation._generate_batch, greedy_decoding.decode_greedily

    @contextmanager
    def noted(place: list[Work]) -> Iterator[Work]:
        marks.clear()
        device.restart_peak()
        waits, pageable = Counter(device.waits.waits), Counter(device.waits.pageable)
        work = Work(0, Counter(), Counter(), 0)
        yield work
        work.peak = device.peak
        work.waits, work.pageable = device.waits.waits - waits, device.waits.pageable - pageable
        work.count = work.count or len(marks)
        if len(marks) > 1:
            work.between = (marks[-1] - marks[0]) / (len(marks) - 1)
        place.append(work)

    def moved(batch: MicroBatch, *arguments: Any) -> MicroBatch:
        marks.append(device.waits.total)
        return to(batch, *arguments)

    def stepped(stepper: Stepper, *arguments: Any) -> Any:
        with noted(seen.steps):
            return step(stepper, *arguments)

    def probed(fitting: FittingSteps) -> int:
        with noted(seen.probes):
            return find(fitting)

    def evaluated(loop: Loop) -> Any:
        with noted(seen.evaluations):
            return evaluate(loop)

    def answered(*arguments: Any) -> Any:
        with noted(seen.generated) as work:
            found = generate(*arguments)
            work.count = max(len(answer.ids) + answer.ended for answer in found)
            return found

    def decoded(*arguments: Any, **options: Any) -> Any:
        with noted(seen.decoded) as work:
            logits, tokens = decode(*arguments, **options)
            work.count = sum(token >= 0 for row in tokens.tolist() for token in row)
            return logits, tokens

    with ExitStack() as stack:
        for owner, name, replacement in (
            (MicroBatch, "to", moved),
            (Stepper, "step", stepped),
            (FittingSteps, "find", probed),
            (Loop, "evaluate", evaluated),
        ):
            stack.enter_context(method_replaced(owner, name, replacement))
        stack.enter_context(replaced(generate, answered))
        stack.enter_context(replaced(decode, decoded))
        yield seen
