"""The host memory (the box's RAM, not the GPU's) that training runs will need, from config.json and settings.

A run's peak is the larger of two moments, beside what its processes always hold: every process has loaded the weights and not yet
moved them to its GPU, or the main process holds the copy of a checkpoint that is being written. They do not happen at once.
Page cache (rows of tokens, files of weights that are mapped) is not counted: the kernel takes it back when memory runs short.
"""

from __future__ import annotations

from dataclasses import dataclass

from remote_payload.forecast.architecture import Architecture, count_parameters
from remote_payload.forecast.disk import checkpoint_bytes
from remote_payload.forecast.shape import BYTES, GIB, TrainingShape

# A process with torch, transformers and a CUDA context: what it holds of its own, before it has loaded a model.
PROCESS = int(2.5 * GIB)


@dataclass(frozen=True)
class HostForecast:
    """Bytes of host memory. The first three are of one run; ``total`` is the peak of ``runs`` of them at once, at worst."""

    processes: int  # interpreters with torch and CUDA, one a GPU
    loading: int  # weights in host memory before they are on the GPUs, in every process
    checkpoint: int  # weights and optimizer state of a checkpoint that is being written
    runs: int

    @property
    def each(self) -> int:
        """The peak of one run."""
        return self.processes + max(self.loading, self.checkpoint)

    @property
    def total(self) -> int:
        """The peak of all runs, should they load or save at the same moment."""
        return self.runs * self.each


def forecast_host(
    model: Architecture, shape: TrainingShape, *, processes: int = 1, runs: int = 1, resumable: bool = True
) -> HostForecast:
    """Host memory of ``runs`` runs at once on a box, each of ``processes`` processes (one a GPU).

    ``resumable``: checkpoints hold the optimizer's state too. Raises KeyError for weights of a dtype that is not in ``BYTES``.
    """
    weights = count_parameters(model, head=shape.language_head).total * BYTES[shape.weights]
    return HostForecast(
        processes=processes * PROCESS,
        loading=processes * weights,
        checkpoint=checkpoint_bytes(model, shape, resumable=resumable),
        runs=runs,
    )
