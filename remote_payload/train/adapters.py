"""Low-rank adapters through peft: which layers get one, and how they are put on."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from remote_payload.train.errors import InputError

# What attention projections are called: Llama's family, GPT-2, BERT, GPT-NeoX.
ATTENTION_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "c_attn", "query", "key", "value", "query_key_value")


def add_adapters(model: PreTrainedModel, lora: Any, task_type: str | None = None) -> PeftModel:
    """The model frozen, with trainable fp32 adapters as the ``lora`` settings say; seed torch before, A is random.

    Raises InputError naming ``settings.lora.targets`` when no layer, or not every name, is in the model.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_names(model, lora.targets),
        task_type=task_type,
    )
    return get_peft_model(model, config)


def target_names(model: nn.Module, targets: list[str] | str) -> list[str]:
    """The names of the layers that get an adapter; ``auto`` is the attention projections the model has."""
    layers = {name for name, module in model.named_modules() if _is_linear(module)}
    known = {name.rsplit(".", 1)[-1] for name in layers}
    wanted = [name for name in ATTENTION_NAMES if name in known] if targets == "auto" else list(targets)
    missing = [name for name in wanted if not any(layer == name or layer.endswith("." + name) for layer in layers)]
    if missing or not wanted:
        problem = f"no linear layer called {', '.join(missing)}" if missing else "no attention projections found"
        raise InputError(f"settings.lora.targets: {problem}; the model has {', '.join(sorted(known))}")
    return wanted


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's linear layer, transposed
