"""Settings of the ``preference`` recipe: pairs of a better and a worse answer (DPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from remote_payload.settings.generation import Generation
from remote_payload.settings.setting import group, required, setting
from remote_payload.settings.training import Batch, Checkpoint, Evaluation, Optimizer, Publish, Schedule

METRICS = {
    "loss": False,
    "reward_accuracy": True,
    "reward_margin": True,
    "chosen_reward": True,
    "rejected_reward": False,
}


@dataclass
class PreferenceSettings:
    """A trained adapter is trained further on pairs; the reference is the model with that adapter as it was."""

    model: str = required(
        "The base model of the adapter: a model id on the Hub, or a folder (relative to the job's code).",
        examples=["Qwen/Qwen2.5-0.5B-Instruct"],
        kind="model",
    )
    adapter: str = required(
        "The adapter to start from: a folder as peft saves it, whoever trained it, or run:ID for models/best of an earlier run.",
        examples=["adapters/brie", "run:brie-20260102-142030-7f3a"],
        kind="adapter",
    )
    train: str = required(
        "Pairs: a JSON Lines, JSON or parquet file, or a folder of them.", examples=["data/pairs.jsonl"], kind="data"
    )
    revision: Optional[str] = setting(None, "Branch, tag or commit of the model.")
    validation: Optional[str] = setting(
        None,
        "Pairs to evaluate on; without them evaluation is on the training pairs, of which there are few.",
        kind="data",
    )
    prompt_field: str = setting("prompt", "The field with the prompt: text, or a conversation ({role, content}).")
    chosen_field: str = setting("chosen", "The field with the better answer.")
    rejected_field: str = setting("rejected", "The field with the worse answer.")
    prompt_template: Optional[str] = setting(
        None,
        "Makes a prompt of an example's fields, as in sft; without it prompts are written as in the adapter's training, where gpurun "
        "trained it, else as conversations.",
        examples=["Question: {prompt}\nAnswer:"],
    )
    system_prompt: Optional[str] = setting(None, "The system message of prompts that have none of their own.")
    chat_template: Optional[str] = setting(
        None, "A Jinja file with a chat template, where the tokenizer has none or another is wanted.", kind="data"
    )
    pad_token: Optional[str] = setting(
        None,
        "A token of the vocabulary to fill short rows with, where the tokenizer has none.",
        examples=["<|endoftext|>"],
    )
    beta: float = setting(0.1, "How strongly the model is held to the reference; smaller lets it go further.", gt=0)
    max_length: int = setting(1024, "Tokens of prompt and answer; longer pairs are left out, and counted.", ge=8)
    epochs: float = setting(3.0, "Passes over the pairs.", gt=0)
    max_steps: Optional[int] = setting(None, "Stop after so many optimizer steps, whatever the value of epochs.", ge=1)
    seed: int = setting(0, "Of the order of the pairs, dropout and sampling.", ge=0)
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "Of the model; auto is bf16 where the GPU has it. Adapters and the loss are fp32 always."
    )
    resume: Optional[str] = setting(None, "Checkpoint to resume from: auto, a name or a path.")
    smoke_rows: int = setting(8, "Prompts whose logits and tokens travel with the model, for the smoke test.", ge=1)
    optimizer: Optimizer = group(Optimizer, "The optimizer; DPO wants a small learning rate, such as 5e-6.")
    schedule: Schedule = group(Schedule, "The learning rate over time.")
    batch: Batch = group(Batch, "Batch sizes and memory, in pairs.")
    checkpoint: Checkpoint = group(Checkpoint, "What can be resumed.")
    evaluation: Evaluation = group(Evaluation, "Evaluation and model selection.")
    publish: Publish = group(Publish, "Publishing the finished model on the Hub.")
    generation: Generation = group(Generation, "The answers written after training, and the report on them.")
