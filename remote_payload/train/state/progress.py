"""Where a training is, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

from remote_payload.train.signals import Requests


class Scored(TypedDict):
    """The metrics of one step: all that choosing the best needs."""

    step: int
    metrics: dict[str, float]


class EvaluationResult(Scored):
    """An evaluation, as checkpoints and the record keep it."""

    epoch: float
    seconds: float  # that it took


class EpochFigures(TypedDict):
    """An epoch, or the part of one in which training ended: what its steps were like, as the model learnt from them."""

    epoch: float  # epochs of training at its end
    step: int  # its last
    steps: int
    samples: int
    tokens: int
    seconds: float  # from the end of the epoch before to its own, evaluations and saves included
    samples_per_second: float  # of its optimizer steps alone
    tokens_per_second: float
    metrics: dict[str, float]  # "loss", and what the task measures of its training passes


@dataclass
class OpenEpoch:
    """What the steps so far of an epoch add up to, over all ranks."""

    began: float = 0.0  # seconds of training until then
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of the steps alone
    loss: float = 0.0  # summed, as is ``count``, which it is divided by
    count: float = 0.0
    scores: list[float] = field(default_factory=list)  # of a ``ScoredTask`` (loop/step.py)


@dataclass
class Progress:
    """Where training is: all that a checkpoint holds besides tensors. The data position is (epoch, step in the epoch).

    ``best``, ``best_step`` and ``without_better`` follow from the evaluations (best.py).
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    micro_batch_rows: int = 0  # rows of full length that go through a device at once
    probed: int = 0  # as many fitted when that was tried; micro_batch_rows is less after an OOM
    hardware: str = ""  # where that was tried; "" in older checkpoints
    seconds: float = 0.0  # of training, in all processes that took part in it
    timed_tokens: int = 0  # tokens and seconds of the optimizer steps alone: the speed
    timed_seconds: float = 0.0
    timed_samples: int | None = 0  # None: an older checkpoint did not count them
    first_loss: float | None = None  # of the first step; None too where that was before an older checkpoint
    last_loss: float | None = None
    seed: int | None = None  # what the data position means depends on these two
    steps_per_epoch: int | None = None
    best: float | None = None
    best_step: int | None = None
    without_better: int = 0
    evaluations: list[EvaluationResult] = field(default_factory=list)
    epochs: list[EpochFigures] = field(default_factory=list)  # those that are over
    open_epoch: OpenEpoch = field(default_factory=OpenEpoch)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """From the ``state.json`` of a checkpoint; older ones call ``micro_batch_rows`` ``micro``, and know of no epoch's figures."""
        fields = {"micro_batch_rows" if name == "micro" else name: value for name, value in state.items()}
        if "open_epoch" not in fields:
            fields |= {"timed_samples": None, "open_epoch": {"began": fields.get("seconds", 0.0)}}
        return cls(**{**fields, "open_epoch": OpenEpoch(**fields["open_epoch"])})

    def evaluated(self) -> bool:
        """Whether there is an evaluation of this very step."""
        return any(entry["step"] == self.step for entry in self.evaluations)


FINISHED, EARLY, STOPPED = "finished", "early stopping", "stopped"  # why training ended


@dataclass
class Outcome:
    """The result of a training: ``reason`` is FINISHED, EARLY or STOPPED. Seconds and speed are of the whole run, resumed or not."""

    progress: Progress
    total: int
    reason: str
    seconds: float
    peak_memory: int
    losses: list[float]  # of this process's steps, resumed ones not included
    tokens_per_second: float
    samples_per_second: float | None  # None where an older checkpoint did not count them
    mfu: float | None
    requests: Requests  # signals are noticed until the process ends
    dtype: str  # of the weights that were trained, or lay under the adapter: "bfloat16"
