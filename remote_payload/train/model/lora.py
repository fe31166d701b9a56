"""Low-rank adapters through peft, on layers that exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from remote_payload.settings.training import Lora
from remote_payload.train.download import BaseModel
from remote_payload.train.errors import InputError

PREFIX = "base_model.model."  # of every name in peft's files
# The projections of attention, under the names that the families give them. BERT calls those of its MLP "dense" too.
ATTENTION = (("q_proj", "k_proj", "v_proj", "o_proj"), ("query", "key", "value", "dense"), ("c_attn", "c_proj"))


def linear_names(model: nn.Module) -> list[str]:
    """The last part of the name of every linear layer in the model's blocks, each once (the output head is not one of them)."""
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    return sorted({name.rpartition(".")[2] for name in linear} - {"lm_head"})


def lora_targets(model: nn.Module, wanted: list[str] | str) -> list[str] | str:
    """The layers to adapt; "auto" means the attention projections that this model has.

    Raises InputError for a name that no linear layer has.
    """
    there = linear_names(model)
    if wanted == "all-linear":
        return wanted
    if wanted == "auto":
        found = next(([name for name in names if name in there] for names in ATTENTION if names[0] in there), None)
        if not found:
            raise InputError(
                f"settings.lora.targets: auto does not know this model; name layers among {', '.join(there)}"
            )
        return found
    for name in wanted:
        if name.rpartition(".")[2] not in there:
            raise InputError(f"settings.lora.targets: the model has no linear layer {name}; it has {', '.join(there)}")
    return list(wanted)


def add_lora(model: Any, lora: Lora, task: str) -> PeftModel:
    """The model frozen, with trainable adapters in fp32; ``task`` is peft's (FEATURE_EXTRACTION, CAUSAL_LM)."""
    config = LoraConfig(
        task_type=task,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora_targets(model, lora.targets),
    )
    adapted = get_peft_model(model, config)
    in_fp32(adapted)
    return adapted


def adapted_layers(model: PeftModel) -> tuple[str, ...]:
    """The last parts of the names of the layers that have an adapter, each once: a configuration may have a pattern instead."""
    names = (name for name, module in model.named_modules() if isinstance(module, LoraLayer))
    return tuple(sorted({name.rpartition(".")[2] for name in names}))


def in_fp32(model: nn.Module) -> None:
    """What is trained, in fp32: the weights of an adapter may have been made or saved in half precision."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def put_weights(model: PeftModel, weights: dict[str, Tensor], folder: str | Path) -> None:
    """Loads the weights of the adapter in ``folder`` into a model that was made for them.

    Raises InputError for weights that are missing, left over or of another shape: peft warns of the first two at most.
    """
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    if odd := sorted(wanted.keys() ^ weights.keys()):
        shown = ", ".join(name.removeprefix(PREFIX) for name in odd[:3])
        raise InputError(f"{folder}: the adapter does not fit its base model: {len(odd)} weights differ ({shown})")
    try:
        set_peft_model_state_dict(model, weights)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: the adapter does not fit its base model ({last_line(error)})") from None


def last_line(error: Exception) -> str:
    """The last line of an error, which says of peft's and torch's what it is about."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def save_adapter(model: PeftModel, folder: Any, base: BaseModel) -> None:
    """adapter_config.json and adapter_model.safetensors; the base model under its public name and at the commit of training, not
    as a path of this machine: peft's own classes load that base."""
    config = model.peft_config["default"]
    before = config.base_model_name_or_path, config.revision
    config.base_model_name_or_path, config.revision = base.name, base.revision
    try:
        model.save_pretrained(folder, save_embedding_layers=False)
    finally:
        config.base_model_name_or_path, config.revision = before
    (folder / "README.md").unlink(missing_ok=True)  # peft's template; the recipe writes a card with numbers in it


@contextmanager
def weights_of(model: PeftModel, folder: str | Path) -> Iterator[PeftModel]:
    """The model with its adapter's weights from ``folder`` as long as the context lasts, and then with its own again."""
    own = {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}
    set_peft_model_state_dict(model, load_file(Path(folder) / "adapter_model.safetensors"))
    try:
        yield model
    finally:
        set_peft_model_state_dict(model, own)
