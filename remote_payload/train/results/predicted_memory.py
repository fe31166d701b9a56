"""The memory that ``gpurun check`` predicts, computed again for what really ran: the record has it beside the measured peak."""

from __future__ import annotations

from peft import PeftModel
from transformers import PreTrainedModel

from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.memory import MemoryRecord, forecast_memory
from remote_payload.forecast.shape import TrainingShape
from remote_payload.train.model.attention import repeats_heads
from remote_payload.train.model.lora import adapted_layers
from remote_payload.train.run import Run
from remote_payload.train.state.progress import Outcome


def predicted_memory(
    run: Run, network: PreTrainedModel | PeftModel, outcome: Outcome, length: int | None, *, language_head: bool, masked: bool
) -> MemoryRecord | None:  # fmt: skip
    """Bytes by part for the micro-batch that ran, with texts of ``length`` tokens. None for a family without formula.

    ``language_head``: the network ends in a head over the vocabulary. ``masked``: its batches are padded.
    """
    if length is None:
        return None
    lora = network.peft_config["default"] if isinstance(network, PeftModel) else None
    autocast = run.world.device.type == "cuda" and run.settings.precision != "fp32"
    shape = TrainingShape(
        micro_batch=outcome.progress.micro_batch_rows,
        length=2 * length if run.recipe == "preference" else length,  # a row is both answers of a pair
        weights=outcome.dtype,  # not the network's: of a sharded run that was loaded again in another
        autocast=autocast,
        lora_rank=lora.r if lora else 0,
        lora_targets=adapted_layers(network) if isinstance(network, PeftModel) else "all-linear",
        lora_dropout=lora.lora_dropout if lora else 0.0,
        checkpoint_activations=run.settings.batch.activation_checkpointing,
        language_head=language_head,
        pairs=run.recipe == "preference",
        masked=masked,
        shards=run.world.size if run.world.sharded else 1,
        repeated_heads=language_head and repeats_heads(network.config, half=autocast),
    )
    try:
        return forecast_memory(Architecture.from_config(network.config.to_dict()), shape).as_dict()
    except (ValueError, KeyError):
        return None
