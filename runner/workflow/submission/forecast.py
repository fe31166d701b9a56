"""Predicted memory and disk of a recipe job on a box, from its settings and the model's config.json, before money is spent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from remote_payload.forecast.accuracy import stated_error
from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.disk import DiskForecast, checkpoints_of_a_run, forecast_disk
from remote_payload.forecast.host import HostForecast, forecast_host
from remote_payload.forecast.memory import MemoryForecast, forecast_memory, largest_micro_batch
from remote_payload.forecast.shape import TrainingShape
from runner import store
from runner.domain.answers.box import Box, Gpu
from runner.domain.errors import GpurunError
from runner.domain.job import Job, RunOutput, Settings
from runner.domain.sweep import repeats_of

# What ``targets: auto`` means: the attention projections, as the model families name them.
ATTENTION = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "query",
    "key",
    "value",
    "dense",
    "c_attn",
    "c_proj",
)


@dataclass(frozen=True)
class Adapter:
    """The LoRA adapter that a job trains; rank 0 for none."""

    rank: int = 0
    targets: tuple[str, ...] | str = ATTENTION
    dropout: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """What a run of this job will need, and what the box has for it. Bytes."""

    model: Architecture
    shape: TrainingShape
    settings: Settings
    batch: int  # examples of one optimizer step
    memory: MemoryForecast  # of each GPU
    card: Gpu | None  # the smallest GPU that the run may get
    gpus: int  # how many the box has
    host: HostForecast  # of all runs of this kind that train at once
    ram: int | None
    ram_free: int | None
    disk: DiskForecast | None  # of all runs of this kind; None where the number of checkpoints is not known yet
    removed: int  # how many of these runs do not count there, since ``keep_finished`` removes what they wrote
    disk_free: int

    @property
    def error(self) -> float:
        """How far the forecast may be off, as a share of what the run takes."""
        return stated_error(self.shape)

    def disk_of(self, run: Job) -> int:
        """Bytes of checkpoints and the finished model of one run of this kind; 0 where their number is not known yet."""
        count = _checkpoint_count(run)
        if count is None:
            return 0
        return forecast_disk(self.model, self.shape, [count], run.setting("checkpoint", "resumable")).total


def predict(run: Job, box: Box, model: Architecture, alike: Sequence[Job]) -> Forecast:
    """The forecast of a run, and of ``alike``, the runs of the submission that have its shape (itself among them), together.

    With ``batch.micro: auto`` it is that of the largest micro-batch that fits, and of one row where not even that fits.
    Raises ValueError, KeyError, TypeError or OSError for settings that tell too little.
    """
    shape, batch = shape_of(run, box), batch_of(run)
    at_once, ranks = runs_at_once(run, box, len(alike)), _ranks(run, box)
    card = min(cards_of(run, box, at_once), key=lambda gpu: gpu.memory_total, default=None)
    automatic = run.settings.get("batch", {}).get("micro", "auto") == "auto"
    if automatic:
        fits = largest_micro_batch(model, shape, -(-batch // ranks), card.memory_total) if card else 1
        shape = shape_of(run, box, max(fits, 1))
    together = most_at_once(alike, at_once)
    counts = [count for each in together if (count := _checkpoint_count(each)) is not None]
    resumable = run.settings.get("checkpoint", {}).get("resumable")
    return Forecast(
        model=model, shape=shape, settings=run.settings, batch=batch, memory=forecast_memory(model, shape),
        card=card, gpus=len(box.gpus), host=forecast_host(model, shape, processes=ranks, runs=at_once),
        ram=box.ram or None, ram_free=box.ram_free,
        disk=forecast_disk(model, shape, counts, resumable) if counts else None,
        removed=len(alike) - len(together), disk_free=box.disk_free,
    )  # fmt: skip


def batch_of(run: Job) -> int:
    """Examples of one optimizer step."""
    return int(run.settings.get("batch", {}).get("size", 1))


def cards_of(job: Job, box: Box, runs: int = 1) -> Sequence[Gpu]:
    """The GPUs that ``runs`` runs of the job may get: the first that are free (crowded ones last), any where they have to wait for them."""
    known = [gpu for gpu in box.gpus if gpu.memory_total]  # a GPU without memory of its own has the machine's
    wanted = len(box.gpus) if job.resources.gpus == "all" else job.resources.gpus * runs
    free = sorted((gpu for gpu in known if gpu.free), key=lambda gpu: gpu.memory_used > gpu.memory_total // 10)
    return free[:wanted] if len(free) >= wanted else known


def runs_at_once(job: Job, box: Box, runs: int) -> int:
    """How many of ``runs`` runs the box's GPUs let train at the same time."""
    return max(1, min(runs, len(box.gpus) // _ranks(job, box)))


def most_at_once(runs: Sequence[Job], training: int) -> list[Job]:
    """Those of the runs whose checkpoints may lie on the disk together, where ``training`` of them train at once: all, or by
    ``keep_finished`` of each experiment so many, and of the others those that train.
    """
    kept: list[Job] = []
    others: list[Job] = []
    places: Counter[tuple[object, str]] = Counter()
    for run in runs:
        repeats = (run.file, repeats_of(run) if run.keep_finished else "")
        places[repeats] += 1
        stays = not run.keep_finished or places[repeats] <= run.keep_finished
        (kept if stays else others).append(run)
    others.sort(key=lambda run: -(_checkpoint_count(run) or 0))
    return [*kept, *others[:training]]


def shape_of(job: Job, box: Box, micro_batch: int | None = None) -> TrainingShape:
    """The forecast's terms for a recipe's settings; ``micro_batch`` in sequences on one GPU, by default the job's own, else 1."""
    settings, adapter = job.settings, _adapter(job)
    batch = settings.get("batch", {})
    given = batch.get("micro")
    half = settings.get("precision", "auto") != "fp32" and bool(box.gpus)
    both_answers_of_a_pair = 2 if job.recipe == "preference" else 1
    return TrainingShape(
        micro_batch=micro_batch or (given if isinstance(given, int) else 1),
        length=int(settings.get("max_length") or 512) * both_answers_of_a_pair,
        weights="bfloat16" if (half and adapter.rank) or settings.get("weights") == "bf16" else "float32",
        autocast=half,
        lora_rank=adapter.rank,
        lora_targets=adapter.targets,
        lora_dropout=adapter.dropout,
        checkpoint_activations=bool(batch.get("activation_checkpointing")),
        language_head=job.recipe != "classify",
        pairs=job.recipe == "preference",
        masked=job.recipe == "classify",
        shards=_ranks(job, box) if settings.get("shard") else 1,
    )


def _ranks(job: Job, box: Box) -> int:
    """How many processes share the effective batch."""
    wanted = job.resources.gpus
    return max(job.resources.processes or (len(box.gpus) if wanted == "all" else wanted), 1)


def _adapter(job: Job) -> Adapter:
    """The job's own adapter, or the one that it goes on with (``settings.adapter``)."""
    folder = job.settings.get("adapter")
    if not folder:
        lora = job.settings.get("lora", {})
        return Adapter(int(lora.get("rank") or 0), _targets(lora.get("targets", "auto")), float(lora.get("dropout", 0)))
    if output := next((each for place, each in job.run_outputs.items() if place == folder), None):
        return _adapter_of(output)
    config = json.loads((_place_here(job, str(folder)) / "adapter_config.json").read_text("utf-8"))
    return Adapter(int(config["r"]), _targets(config.get("target_modules")), float(config.get("lora_dropout", 0)))


def _adapter_of(output: RunOutput) -> Adapter:
    """The adapter that an earlier run has trained, by its settings. Raises ValueError where they do not tell."""
    try:
        job = store.load(output.run_id).job
    except GpurunError as error:
        raise ValueError(error.message) from None
    if job.recipe not in ("sft", "classify", "preference"):
        raise ValueError(f"the rank of the adapter in {output} is not known here")
    return _adapter(job)


def _place_here(job: Job, written: str) -> Path:
    """Where a path of the job's data is on this machine."""
    path = PurePosixPath(written)
    for appears, source in job.data_places.items():
        if path == PurePosixPath(appears) or PurePosixPath(appears) in path.parents:
            return source / path.relative_to(appears)
    return job.folder / written


def _targets(wanted: object) -> tuple[str, ...] | str:
    if wanted == "auto":
        return ATTENTION
    return tuple(wanted) if isinstance(wanted, list | tuple) else "all-linear"


def _checkpoint_count(run: Job) -> int | None:
    """How many checkpoints the run keeps; None where its settings alone do not tell."""
    wanted = run.settings.get("checkpoint", {})
    every, keep = wanted.get("every_epochs"), wanted.get("keep")
    if keep is not None:
        return int(keep) + 1  # the best one is kept beside the latest
    if not every or wanted.get("every_steps") or run.settings.get("max_steps"):
        return None
    start = bool(wanted.get("at_start"))
    return checkpoints_of_a_run(float(run.settings.get("epochs") or 1), every, start=start, final=False)
