"""Settings of the ``sft`` recipe: a language model learns answers from examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from remote_payload.settings.generation import Generation
from remote_payload.settings.setting import group, required, setting
from remote_payload.settings.training import Batch, Checkpoint, Evaluation, Lora, Optimizer, Publish, Schedule

JSON_METRICS = {"json_exact": True, "field_f1": True, "schema_compliance": True, "json_parses": True}
# Of answers to held-out prompts, which an evaluation only writes when one of these decides.
ANSWER_METRICS = {**JSON_METRICS, "bleu": True, "rouge1": True, "rouge2": True, "rougeL": True}
METRICS = {"loss": False, "perplexity": False, "token_accuracy": True, **ANSWER_METRICS}


@dataclass
class SftSettings:
    """A causal language model trained on conversations or on prompts with completions, the loss on the answers only."""

    model: str = required(
        "The language model: a model id on the Hub, or a folder (relative to the job's code).",
        examples=["Qwen/Qwen2.5-0.5B"],
        kind="model",
    )
    train: str = required(
        "Training examples: a JSON Lines, JSON or parquet file, or a folder of them.",
        examples=["data/train.jsonl"],
        kind="data",
    )
    revision: Optional[str] = setting(None, "Branch, tag or commit of the model.")
    adapter: Optional[str] = setting(
        None,
        "The adapter to start from, instead of a new one: a folder as peft saves it, whoever trained it, or run:ID for models/best "
        "of an earlier run. It brings its own rank and layers, so lora is not read.",
        examples=["adapters/mine", "run:brie-20260102-142030-7f3a"],
        kind="adapter",
    )
    validation: Optional[str] = setting(
        None, "Examples to evaluate on while training; without them a share of train is held out.", kind="data"
    )
    validation_share: float = setting(
        0.1, "Share of the examples held out when there are no validation examples.", gt=0, lt=1
    )
    test: Optional[str] = setting(
        None,
        "Examples that nothing is chosen by, for the report at the end; without them it uses validation.",
        kind="data",
    )
    messages_field: str = setting(
        "messages",
        "The field with a conversation: a list of {role, content}, with tool_calls where there are any; the field tools beside it.",
    )
    prompt_template: Optional[str] = setting(
        None,
        "Makes the examples prompts with completions instead of conversations: this text, in which {name} stands for the "
        "example's field of that name, is the prompt.",
        examples=["Extract the data as JSON.\n\nInput: {prompt}\n\nOutput:"],
    )
    completion_field: str = setting(
        "completion", "With prompt_template, the field with the answer; what is not text is learnt as JSON."
    )
    system_prompt: Optional[str] = setting(None, "The system message of conversations that have none of their own.")
    chat_template: Optional[str] = setting(
        None, "A Jinja file with a chat template, where the tokenizer has none or another is wanted.", kind="data"
    )
    pad_token: Optional[str] = setting(
        None,
        "A token of the vocabulary to fill short rows with, where the tokenizer has none.",
        examples=["<|endoftext|>"],
    )
    max_length: int = setting(1024, "Tokens of an example; longer ones are truncated at their end, and counted.", ge=8)
    lora: Lora = group(Lora, "Adapters on the model; rank 0 trains all of it.")
    epochs: float = setting(2.0, "Passes over the training examples.", gt=0)
    max_steps: Optional[int] = setting(None, "Stop after so many optimizer steps, whatever the value of epochs.", ge=1)
    seed: int = setting(0, "Of the split, the order of the examples, adapters, dropout and sampling.", ge=0)
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "Of the model; auto is bf16 where the GPU has it. Adapters and the loss are fp32 always."
    )
    resume: Optional[str] = setting(None, "Checkpoint to resume from: auto, a name or a path.")
    json_extraction: bool = setting(
        False, "The answers are JSON: report json_exact, field_f1 and, where there are schemas, schema_compliance."
    )
    schema_field: Optional[str] = setting(None, "The field with an example's own JSON Schema.")
    schema: Optional[str] = setting(None, "A file with the JSON Schema of all answers.", kind="data")
    smoke_rows: int = setting(8, "Prompts whose logits and tokens travel with the model, for the smoke test.", ge=1)
    optimizer: Optimizer = group(Optimizer, "The optimizer.")
    schedule: Schedule = group(Schedule, "The learning rate over time.")
    batch: Batch = group(Batch, "Batch sizes and memory.")
    checkpoint: Checkpoint = group(Checkpoint, "What can be resumed.")
    evaluation: Evaluation = group(Evaluation, "Evaluation and model selection.")
    publish: Publish = group(Publish, "Publishing the finished model on the Hub.")
    generation: Generation = group(Generation, "The answers written after training, and the report on them.")
