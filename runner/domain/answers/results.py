"""What a run has come to: its evaluations, its chosen model and its checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from runner.domain.answers.reading import Fields, finite_number, list_of, mapping_of, optional, text, whole
from runner.domain.answers.status import Status

MAX_RUNS = 100_000
MAX_EVALUATIONS = 4096
MAX_METRICS = 256
CHOSEN = "models/best"  # the name of the chosen model's evaluation: the folder that holds it


@dataclass(frozen=True)
class Evaluation:
    """The last evaluation of one name, at ``step``: a metric that was not a number is left out."""

    name: str
    step: int | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Results:
    """One run. ``best`` is what was measured of the chosen model (a recipe's), ``final`` the bytes of it, or of the newest checkpoint.

    ``checkpoints`` counts all that are complete, the chosen model among them; ``bytes`` is their size.
    """

    status: Status
    evaluations: tuple[Evaluation, ...] = ()
    best: Evaluation | None = None
    final: int | None = None
    checkpoints: int = 0
    bytes: int = 0

    @property
    def measured(self) -> tuple[Evaluation, ...]:
        """All evaluations, that of the chosen model last."""
        return (*self.evaluations, *((self.best,) if self.best else ()))

    def as_json(self) -> dict[str, object]:
        """As ``read_result`` reads it."""
        return asdict(self)


def read_results(answer: Fields) -> tuple[Results, ...]:
    """Raises Impossible naming a wrong field."""
    return answer("runs", list_of(read_result, MAX_RUNS))


def read_result(value: object) -> Results:
    """One run's, from the box or from a note on this machine. Raises Impossible."""
    fields = Fields(value)
    return Results(
        status=fields("status", Status.parse),
        evaluations=fields("evaluations", list_of(_evaluation, MAX_EVALUATIONS)),
        best=fields("best", optional(_evaluation)),
        final=fields("final", optional(whole)),
        checkpoints=fields("checkpoints", whole),
        bytes=fields("bytes", whole),
    )


def _evaluation(value: object) -> Evaluation:
    fields = Fields(value)
    metrics = fields("metrics", mapping_of(finite_number, MAX_METRICS))
    return Evaluation(fields("name", text), fields("step", optional(whole)), metrics)
