"""Predicted VRAM and disk of a recipe job, from its settings and the model's config.json: nothing is downloaded but that."""

from __future__ import annotations

import json
from typing import Any

from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.forecast import (
    GIB,
    MemoryForecast,
    TrainingShape,
    checkpoint_bytes,
    checkpoints_of_a_run,
    forecast_memory,
    largest_micro_batch,
)
from runner.domain.answers.box import Box
from runner.domain.errors import GpurunError
from runner.domain.job import Job
from runner.domain.sweep import SweepRun, expand
from runner.workflow.submission.checks import Finding

# What "auto" takes: the attention projections, as the families name them.
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


def forecast(job: Job, box: Box) -> list[Finding]:
    """How much VRAM the job will want on each GPU and how much disk for checkpoints, and what to set when that does not fit."""
    if not job.recipe:
        return []
    try:
        model, wanted = Architecture.from_config(_config(job)), shape_of(job, box)
    except (GpurunError, ValueError, KeyError, TypeError, OSError) as error:
        return [Finding("VRAM forecast", "warn", f"not possible: {error}")]
    capacity = min((gpu.memory_total for gpu in box.gpus), default=0)
    batch = int(job.settings.get("batch", {}).get("size", 1))
    micro = job.settings.get("batch", {}).get("micro", "auto")
    if micro == "auto":
        fits = largest_micro_batch(model, wanted, -(-batch // _ranks(job, box)), capacity) if capacity else 1
        wanted = shape_of(job, box, max(fits, 1))
    memory = _finding(forecast_memory(model, wanted), wanted, batch, capacity, automatic=micro == "auto")
    return [memory, *_disk(job, model, wanted, box)]


def shape_of(job: Job, box: Box, micro_batch: int | None = None) -> TrainingShape:
    """The forecast's terms for a recipe's settings."""
    settings: dict[str, Any] = job.settings
    batch, lora = settings.get("batch", {}), _lora(job)
    given = batch.get("micro")
    half = settings.get("precision", "auto") != "fp32" and bool(box.gpus)
    rank = int(lora.get("rank") or 0)
    return TrainingShape(
        micro_batch=micro_batch or (given if isinstance(given, int) else 1),
        length=int(settings.get("max_length") or 512)
        * (2 if job.recipe == "preference" else 1),  # both answers of a pair
        weights="bfloat16" if (half and rank) or settings.get("weights") == "bf16" else "float32",
        autocast=half,
        lora_rank=rank,
        lora_targets=_targets(lora.get("targets", "auto")),
        lora_dropout=float(lora.get("dropout", 0.0)),
        checkpoint_activations=bool(batch.get("activation_checkpointing")),
        language_head=job.recipe != "classify",
        masked=job.recipe == "classify",
        shards=_ranks(job, box) if settings.get("shard") else 1,
    )


def _ranks(job: Job, box: Box) -> int:
    """How many processes share the effective batch."""
    wanted = job.resources.gpus
    return max(job.resources.processes or (len(box.gpus) if wanted == "all" else wanted), 1)


def _lora(job: Job) -> dict[str, Any]:
    """The adapter's rank, targets and dropout: the job's own, or those of the adapter that it goes on with."""
    adapter = job.settings.get("adapter")
    if not adapter:
        found: dict[str, Any] = job.settings.get("lora", {})
        return found
    config = json.loads((job.folder / str(adapter) / "adapter_config.json").read_text("utf-8"))
    return {"rank": config["r"], "targets": config.get("target_modules"), "dropout": config.get("lora_dropout", 0.0)}


def _targets(wanted: Any) -> tuple[str, ...] | str:
    if wanted == "auto":
        return ATTENTION
    return tuple(wanted) if isinstance(wanted, list | tuple) else "all-linear"


def _disk(job: Job, model: Architecture, shape: TrainingShape, box: Box) -> list[Finding]:
    """What the checkpoints of the run, or of all runs of its sweep, will take; nothing where their number is not known yet."""
    kept = job.settings.get("checkpoint", {})
    epochs = [run.overrides.get("settings.epochs", job.settings.get("epochs")) for run in _runs(job)]
    every, keep = kept.get("every_epochs"), kept.get("keep")
    if keep is not None:
        made = [keep + 1] * len(epochs)  # the best one is kept beside the latest
    elif every and not kept.get("every_steps") and not job.settings.get("max_steps"):
        made = [
            checkpoints_of_a_run(float(each or 1), every, start=bool(kept.get("at_start")), final=False)
            for each in epochs
        ]
    else:
        return []
    whole, bare = (checkpoint_bytes(model, shape, resumable) for resumable in (True, False))
    resumable = sum(min(count, kept.get("resumable") or count) for count in made)
    total = resumable * whole + (sum(made) - resumable) * bare + len(made) * bare  # and the finished model
    runs = f"{len(made)} runs, " if len(made) > 1 else ""
    said = (
        f"{total / GIB:,.0f} GiB: {runs}{sum(made)} checkpoints of {bare / GIB:.1f} GiB, {resumable} of them resumable"
    )
    free = box.disk_free
    if total <= free:
        return [Finding("disk forecast", "ok", f"{said}; {free / GIB:,.0f} GiB are free")]
    hint = "Set settings.checkpoint.keep or resumable, checkpoint less often, or clean up between runs (gpurun clean)."
    return [Finding("disk forecast", "warn", f"{said}; {free / GIB:,.0f} GiB are free", hint)]


def _runs(job: Job) -> list[SweepRun]:
    return expand(job.name, {field: list(values) for field, values in (job.sweep or {}).items()})


def _config(job: Job) -> dict[str, Any]:
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


def _finding(found: MemoryForecast, shape: TrainingShape, batch: int, capacity: int, *, automatic: bool) -> Finding:
    total = found.total / GIB
    parts = ", ".join(
        f"{name} {size / GIB:.1f}"
        for name, size in sorted(found.parts.items(), key=lambda part: -part[1])
        if size > GIB // 20
    )
    said = f"{total:.1f} GiB with micro-batch {shape.micro_batch} of effective {batch} ({parts})"
    if not capacity:
        return Finding("VRAM forecast", "ok", said)
    said += f"; the GPU has {capacity / GIB:.0f} GiB"
    if found.total <= capacity:
        return Finding("VRAM forecast", "ok", said)
    hint = (
        "Set settings.batch.activation_checkpointing: true, or a shorter length."
        if automatic
        else "Set settings.batch.micro: auto (the effective batch stays), or activation_checkpointing: true."
    )
    return Finding("VRAM forecast", "warn", said, hint)
