"""Predicted VRAM and disk of a recipe job, from its settings and the model's config.json; only that file is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.disk import checkpoints_of_a_run, forecast_disk
from remote_payload.forecast.memory import GIB, MemoryForecast, TrainingShape, forecast_memory, largest_micro_batch
from runner.domain.answers.box import Box
from runner.domain.errors import GpurunError
from runner.domain.job import Job
from runner.domain.sweep import expand
from runner.workflow.submission.checks import Finding

# What ``targets: auto`` means: the attention projections, as the model families name them.
ATTENTION = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "query",
    "key",
    "value",
    "attention.output.dense",
    "c_attn",
    "attn.c_proj",
)


@dataclass(frozen=True)
class Adapter:
    """The LoRA adapter that a job trains; rank 0 for none."""

    rank: int = 0
    targets: tuple[str, ...] | str = ATTENTION
    dropout: float = 0.0


def forecast(job: Job, box: Box) -> list[Finding]:
    """How much VRAM the job will need on each GPU and how much disk for checkpoints, and what to set when that does not fit."""
    if not job.recipe or job.has_own_recipe:  # nobody knows what a user's own recipe keeps in memory
        return []
    try:
        model, shape = Architecture.from_config(_config(job)), shape_of(job, box)
    except (GpurunError, ValueError, KeyError, TypeError, OSError) as error:
        return [Finding("VRAM forecast", "warn", f"not possible: {error}")]
    capacity = min((gpu.memory_total for gpu in box.gpus), default=0)
    batch = int(job.settings.get("batch", {}).get("size", 1))
    automatic = job.settings.get("batch", {}).get("micro", "auto") == "auto"
    if automatic:
        fits = largest_micro_batch(model, shape, -(-batch // _ranks(job, box)), capacity) if capacity else 1
        shape = shape_of(job, box, max(fits, 1))
    memory = _memory(forecast_memory(model, shape), shape, batch, capacity, automatic=automatic)
    return [memory, *_disk(job, model, shape, box)]


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
    config = json.loads((job.folder / str(folder) / "adapter_config.json").read_text("utf-8"))
    return Adapter(int(config["r"]), _targets(config.get("target_modules")), float(config.get("lora_dropout", 0)))


def _targets(wanted: object) -> tuple[str, ...] | str:
    if wanted == "auto":
        return ATTENTION
    return tuple(wanted) if isinstance(wanted, list | tuple) else "all-linear"


def _disk(job: Job, model: Architecture, shape: TrainingShape, box: Box) -> list[Finding]:
    """What the checkpoints of the run, or of all runs of its sweep, will take; nothing where their number is not known yet.

    A resumable checkpoint holds the optimizer's state too, the others hold the model alone.
    """
    counts = _checkpoint_counts(job)
    if not counts:
        return []
    disk = forecast_disk(model, shape, counts, job.settings.get("checkpoint", {}).get("resumable"))
    runs = f"{disk.runs} runs, " if disk.runs > 1 else ""
    text = (
        f"{disk.total / GIB:,.0f} GiB: {runs}{disk.checkpoints} checkpoints of {disk.each / GIB:.1f} GiB, {disk.resumable} of them"
        f" resumable; {box.disk_free / GIB:,.0f} GiB are free"
    )
    if disk.total <= box.disk_free:
        return [Finding("disk forecast", "ok", text)]
    hint = "Set settings.checkpoint.keep or resumable, checkpoint less often, or clean up between runs (gpurun clean)."
    return [Finding("disk forecast", "warn", text, hint)]


def _checkpoint_counts(job: Job) -> list[int]:
    """How many checkpoints each run of the job keeps; empty where the settings alone do not tell."""
    wanted = job.settings.get("checkpoint", {})
    every, keep = wanted.get("every_epochs"), wanted.get("keep")
    runs = expand(job.name, job.sweep or {})
    if keep is not None:
        return [keep + 1] * len(runs)  # the best one is kept beside the latest
    if not every or wanted.get("every_steps") or job.settings.get("max_steps"):
        return []
    epochs = [run.overrides.get("settings.epochs", job.settings.get("epochs")) for run in runs]
    start = bool(wanted.get("at_start"))
    return [checkpoints_of_a_run(float(each or 1), every, start=start, final=False) for each in epochs]


def _config(job: Job) -> Mapping[str, object]:
    """The model's ``config.json``: of a folder of the job, or from the hub; for a model built from scratch what it will say."""
    if job.recipe == "pretrain":
        shape = job.settings["model"]
        widths = {"n_layer": shape["layers"], "n_embd": shape["width"], "n_head": shape["heads"]}
        tokens = {"vocab_size": job.settings["vocabulary"], "n_positions": job.settings["max_length"]}
        return {"model_type": "gpt2", "activation_function": "gelu_pytorch_tanh", **widths, **tokens}
    model = job.settings.get("model")
    if not isinstance(model, str):
        raise ValueError("the recipe builds its own model")
    local = job.folder / model / "config.json"
    if local.is_file():
        config = json.loads(local.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{local} is not a JSON object")
        return config
    from runner import hub

    return hub.fetch_config(model, job.settings.get("revision"))


def _memory(found: MemoryForecast, shape: TrainingShape, batch: int, capacity: int, *, automatic: bool) -> Finding:
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in found.by_size() if size > GIB // 20)
    text = f"{found.total / GIB:.1f} GiB with micro-batch {shape.micro_batch} of effective {batch} ({parts})"
    if not capacity:
        return Finding("VRAM forecast", "ok", text)
    text += f"; the GPU has {capacity / GIB:.0f} GiB"
    if found.total <= capacity:
        return Finding("VRAM forecast", "ok", text)
    hint = (
        "Set settings.batch.activation_checkpointing: true, or a shorter length."
        if automatic
        else "Set settings.batch.micro: auto (the effective batch stays), or activation_checkpointing: true."
    )
    return Finding("VRAM forecast", "warn", text, hint)
