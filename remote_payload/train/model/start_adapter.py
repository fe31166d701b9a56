"""The adapter that training starts from (``settings.adapter``): a plain folder of peft's, whoever saved it, or one of gpurun's.

The folder is as ``PeftModel.save_pretrained`` writes it (https://huggingface.co/docs/peft/developer_guides/checkpoint): adapter_config.json
and adapter_model.safetensors. gpurun's own has a gpurun.json besides, which says more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from remote_payload.train.download import BaseModel
from remote_payload.train.errors import InputError
from remote_payload.train.files import read_json_object
from remote_payload.train.model.classifier import Classifier, load_encoder
from remote_payload.train.model.lora import PREFIX, in_fp32, last_line, put_weights
from remote_payload.train.model.model_facts import MODEL_FACTS, ModelFacts, read_model_facts
from remote_payload.train.run import Run

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


@dataclass(frozen=True)
class StartAdapter:
    """An adapter's folder: its configuration, and what its gpurun.json says (nothing for one that gpurun did not save)."""

    folder: str
    config: dict[str, Any]
    about: ModelFacts

    def tokenizer_source(self, base: BaseModel) -> str:
        """The folder that has the tokenizer: the adapter's, or the base model's where that has none."""
        return self.folder if (Path(self.folder) / "tokenizer_config.json").is_file() else base.path


def read_start(run: Run, folder: str, base: BaseModel) -> StartAdapter:
    """The adapter of a folder, to be put on ``base``.

    Raises InputError where there is none that training can go on with: a file is missing, it is of another kind than LoRA, or gpurun
    trained it on another model. A plain adapter whose base has another name is flagged: the same model has many names.
    """
    place = Path(folder)
    if not (place / CONFIG).is_file():
        raise InputError(f"settings.adapter: {folder} holds no adapter, {CONFIG} is missing{_advice(place)}")
    if not (place / WEIGHTS).is_file():
        raise InputError(f"settings.adapter: {folder} has no {WEIGHTS}{_advice(place)}")
    config = read_json_object(place / CONFIG)
    if config.get("peft_type") != "LORA":
        raise InputError(f"settings.adapter: {folder} is {config.get('peft_type')}; training goes on with LoRA alone")
    about = read_model_facts(place) if (place / MODEL_FACTS).is_file() else ModelFacts()
    _check_base(run, folder, config, about, base)
    return StartAdapter(folder, config, about)


def _advice(place: Path) -> str:
    if (place / "state.json").is_file():
        return (
            ": it is a checkpoint, which only `gpurun resume` goes on from; models/best of the same run is an adapter"
        )
    if (place / PICKLE).is_file():
        return (
            f", and {PICKLE} is a pickle, which is never loaded: load it where you trust it and write it again with "
            "model.save_pretrained(FOLDER, safe_serialization=True)"
        )
    if (place / "config.json").is_file():
        return ": it is a whole model; name it as settings.model"
    return ""


def _check_base(run: Run, folder: str, config: dict[str, Any], about: ModelFacts, base: BaseModel) -> None:
    of = about.get("base") or {}
    if of:
        same = of.get("id") == base.id or (base.sha256 is not None and of.get("sha256") == base.sha256)
        if not same:
            raise InputError(f"settings.adapter: {folder} was trained on {of.get('id')}, not on {base.id}")
        return
    named = str(config.get("base_model_name_or_path") or "")
    if named and Path(named).name.lower() != Path(base.id).name.lower():
        run.telemetry.flag(
            "other_base",
            f"{folder} says that it was trained on {named}, and settings.model is {base.id}: if these are two models, what the "
            "adapter had learnt is lost",
        )


def check_rank(adapter: str | None, rank: int) -> None:
    """Raises InputError where all weights are to be trained (rank 0) although there is an adapter to start from."""
    if adapter and not rank:
        raise InputError(
            "settings.lora.rank: 0 trains all weights, but settings.adapter names an adapter to go on with"
        )


def start_classifier(
    run: Run, start: StartAdapter, base: BaseModel, labels: list[int | str], compute: torch.dtype
) -> Classifier:
    """A classifier ready to train whose encoder has the adapter, and whose head is the adapter's where both have the same classes.

    An adapter that was trained below another head (peft's SEQ_CLS or CAUSAL_LM) names the encoder's layers with a prefix and may have
    weights outside of it: the prefix is removed, and those weights are left out.
    """
    encoder = load_encoder(base.path, dtype=compute)
    config = LoraConfig.from_pretrained(start.folder)
    names = {name for name, _ in encoder.named_modules() if name}
    weights, outside = _of_encoder(load_file(Path(start.folder) / WEIGHTS), encoder.base_model_prefix, names)
    config.task_type, config.inference_mode, config.modules_to_save = "FEATURE_EXTRACTION", False, None
    if (
        isinstance(config.target_modules, str) and config.target_modules != "all-linear"
    ):  # a pattern over names with the prefix
        config.target_modules = {name.removeprefix(PREFIX).partition(".lora_")[0] for name in weights}
    try:
        adapted = get_peft_model(encoder, config)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"settings.adapter: {start.folder} does not fit {base.id}: {last_line(error)}") from None
    put_weights(adapted, weights, start.folder)
    in_fp32(adapted)
    if outside:
        shown = ", ".join(outside[:3])
        run.log(f"{start.folder}: {len(outside)} weights are not the encoder's and are left out: {shown}")
    model = Classifier(adapted, len(labels))
    if start.about.get("kind") == "classifier" and start.about.get("labels") == labels:
        model.head.load_state_dict(load_file(Path(start.folder) / start.about["head"]))
        run.log(f"{start.folder}: training goes on with its head too")
    else:
        run.log(f"{start.folder}: it has no head for these classes, so the head begins at random")
    return model


def _of_encoder(weights: dict[str, Tensor], prefix: str, layers: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights on ``layers`` under the names that they have on the encoder alone, and the names of all others."""
    found, outside = {}, []
    for name, tensor in weights.items():
        inner = name.removeprefix(PREFIX)
        inside = next((each for each in (inner, inner.removeprefix(f"{prefix}.")) if _layer(each) in layers), None)
        if inside is None:
            outside.append(inner)
        else:
            found[PREFIX + inside] = tensor
    return found, outside


def _layer(name: str) -> str:
    """The layer that a LoRA weight is on: ``layer.0.query.lora_A.weight`` → ``layer.0.query``; empty for any other weight."""
    layer, lora, _ = name.partition(".lora_")
    return layer if lora else ""
