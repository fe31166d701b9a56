"""Models in checkpoints: the files that make a checkpoint loadable by itself, and how it is loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.train.download import BaseModel, base_source
from remote_payload.train.errors import InputError
from remote_payload.train.model.causal import CausalLoss, Network, base_of
from remote_payload.train.model.causal_files import causal_facts, load_causal, load_network, own_tokenizer
from remote_payload.train.model.classifier import (
    Classifier,
    check_base,
    classifier_facts,
    encoder_of_config,
    load_encoder,
    load_tokenizer,
)
from remote_payload.train.model.model_facts import ModelFacts, Prompting, read_model_facts, write_model_facts
from remote_payload.train.state.checkpoint import load_weights


def describe_checkpoint(
    folder: Path, network: Network, tokenizer: PreTrainedTokenizerBase, base: BaseModel | None, prompting: Prompting
) -> None:
    """Adds the files that are not tensors: the model's config, the adapter's if it has one, the tokenizer and gpurun.json."""
    adapter = isinstance(network, PeftModel)
    base_of(network).config.save_pretrained(str(folder))
    if adapter:
        _save_config(network, folder, base)
    elif network.generation_config:
        network.generation_config.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    write_model_facts(folder, {**causal_facts(base, adapter), **prompting})


def describe_classifier(folder: Path, model: Classifier, tokenizer: Any, base: BaseModel, about: ModelFacts) -> None:
    """The same for a classifier; ``about`` has at least ``labels`` and ``max_length``."""
    encoder = model.encoder
    adapter = isinstance(encoder, PeftModel)
    base_of(encoder).config.save_pretrained(str(folder))
    if adapter:
        _save_config(encoder, folder, base)
    tokenizer.save_pretrained(str(folder))
    write_model_facts(folder, {**classifier_facts(base, adapter), **about})


def _save_config(network: PeftModel, folder: Path, base: BaseModel | None) -> None:
    config = copy.copy(network.peft_config["default"])
    config.base_model_name_or_path, config.revision = (base.name, base.revision) if base else (None, None)
    config.save_pretrained(str(folder))


def load_classifier_checkpoint(
    folder: Path, base_path: str | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Classifier, Any]:
    """Classifier (in eval mode, its encoder in ``dtype``) and tokenizer of a checkpoint. Raises InputError as ``load_classifier``."""
    about = read_model_facts(folder, "classifier")
    encoder = encoder_of_config(folder, dtype) if not about.get("adapter") else None
    if encoder is None:
        base = about["base"] or {}
        source, revision = base_source(base, base_path)
        check_base(source, base)
        encoder = get_peft_model(load_encoder(source, dtype, revision=revision), _trainable_config(folder))
    model = Classifier(encoder, len(about["labels"]))
    load_weights(folder, model)
    model.encoder.to(dtype)
    return model.to(device).eval(), load_tokenizer(str(folder))


def load_any(
    folder: Path, base_path: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Network, PreTrainedTokenizerBase]:
    """Model (in eval mode) and tokenizer of a checkpoint, or of a folder with a finished model.

    Raises InputError for a folder that is neither, or that lacks a file.
    """
    about = read_model_facts(folder)
    if not (folder / "state.json").is_file():
        return load_causal(folder, base_path, device, dtype)
    network = (
        _with_adapter(folder, about, base_path, device, dtype) if about.get("adapter") else _bare(folder, device, dtype)
    )
    load_weights(folder, CausalLoss(network))
    return network.eval(), own_tokenizer(folder)


def load_base(
    folder: Path, base_path: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The model that training began with. Raises InputError for one that began with nothing."""
    base = read_model_facts(folder).get("base")
    if not base:
        raise InputError(f"{folder}: this model was trained from nothing, so there is no base to try")
    source, revision = base_source(base, base_path)
    return load_network(source, revision, device=device, dtype=dtype).eval()


def _bare(folder: Path, device: torch.device | str, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def _with_adapter(
    folder: Path, about: ModelFacts, base_path: str | None, device: torch.device | str, dtype: torch.dtype
) -> PeftModel:
    return get_peft_model(load_base(folder, base_path, device, dtype), _trainable_config(folder)).to(device)


def _trainable_config(folder: Path) -> LoraConfig:
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False  # else nothing is trainable, and there is nothing to load the weights into
    return config
