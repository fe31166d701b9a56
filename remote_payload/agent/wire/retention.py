"""Which finished runs of an experiment stay on a box: the rule of ``keep_finished``, and of ``gpurun clean --experiment --keep``."""

from typing import Iterable, List, NamedTuple

REASON = "keep_finished: "  # how the reason begins why a path of a run was removed


class Complete(NamedTuple):
    """A run that succeeded and has what it promised; ``ended_at`` in epoch seconds of the box."""

    run_id: str
    ended_at: float


def first_to_finish(complete: Iterable[Complete], keep: int) -> List[str]:
    """The ids of the first ``keep`` runs to finish, the earliest first."""
    return [each.run_id for each in sorted(complete, key=lambda each: (each.ended_at, each.run_id))[:keep]]
