"""Models that gpurun never saw: an adapter as peft saves it, on its base, or a whole model as transformers saves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedTokenizerBase

from remote_payload.train.download import BaseFacts
from remote_payload.train.errors import InputError
from remote_payload.train.files import read_json_object
from remote_payload.train.inference.kinds import PlainKind, plain_kind
from remote_payload.train.model.lora import PREFIX, last_line

CONFIG, ADAPTER, ADAPTER_WEIGHTS = "config.json", "adapter_config.json", "adapter_model.safetensors"
FAMILIES: dict[PlainKind, Any] = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "sequence_classifier": transformers.AutoModelForSequenceClassification,
    "encoder": transformers.AutoModel,
}


@dataclass(frozen=True)
class PlainModel:
    """A model on the CPU with its tokenizer; ``base`` is what its adapter names, None where there is no adapter."""

    kind: PlainKind
    model: Any
    tokenizer: PreTrainedTokenizerBase
    base: BaseFacts | None


def load_plain(
    folder: Path, base_path: str | None, dtype: torch.dtype, *, kind: PlainKind | None = None, ask_base: bool = False
) -> PlainModel:
    """The model in ``folder``; with ``ask_base`` its base without the adapter. An encoder alone is loaded only where ``kind`` asks.

    ``base_path`` is where an adapter's base lies; without it the base is what adapter_config.json names, which is then a folder here
    or in the Hub's cache. Raises InputError for a folder without a model, weights that are missing, and an adapter for another base.
    """
    adapter = read_json_object(folder / ADAPTER) if (folder / ADAPTER).is_file() else None
    if adapter is None and not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no model here: there is no gpurun.json, {CONFIG} or {ADAPTER}")
    named: BaseFacts = {"id": str((adapter or {}).get("base_model_name_or_path") or ""), "path": None}
    named["revision"] = (adapter or {}).get("revision")
    source = str(folder) if adapter is None else base_path or named["id"]
    if not source:
        raise InputError(f"{folder}: {ADAPTER} does not name the adapter's base model")
    safe: dict[str, Any] = {"trust_remote_code": False}
    if adapter is not None and not Path(source).is_dir():
        safe["revision"] = named["revision"]
    try:
        config = transformers.AutoConfig.from_pretrained(source, **safe)
        found = kind or plain_kind(config.to_dict(), adapter)
        if kind is None and found == "encoder":
            shown = ", ".join(config.architectures or []) or config.model_type
            raise InputError(f"{folder}: it is no classifier and no language model ({shown}), so it predicts nothing")
        model = _load(found, folder, source, adapter is not None, dtype, safe)
        own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
        where, options = (str(folder), {"trust_remote_code": False}) if own else (source, safe)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{folder}: {source} cannot be loaded: {first}") from None
    if adapter is not None and not ask_base:
        model = _with_adapter(model, folder, source)
    _pad(model, tokenizer)
    return PlainModel(found, model, tokenizer, named if adapter is not None else None)


def _load(kind: PlainKind, folder: Path, source: str, adapted: bool, dtype: torch.dtype, safe: dict[str, Any]) -> Any:
    """The whole model. Raises InputError where a weight is missing that neither its file nor the adapter's has: the library would
    have filled it with noise."""
    options = dict(safe)
    shapes = _shapes(folder / ADAPTER_WEIGHTS) if adapted else {}
    if kind == "sequence_classifier" and adapted:
        # peft saves the head with the adapter; its last layer is the narrowest matrix that is no LoRA.
        heads = [shape[0] for name, shape in shapes.items() if "lora_" not in name and len(shape) == 2]
        options |= {"num_labels": min(heads), "ignore_mismatched_sizes": True} if heads else {}
    model, about = FAMILIES[kind].from_pretrained(
        source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
    )
    # Whoever averages the token vectors leaves the pooler out.
    pooler = ("pooler.",) if kind == "encoder" else ()
    lacking = {*about["missing_keys"], *(each[0] for each in about["mismatched_keys"])}
    missing = sorted(name for name in lacking if PREFIX + name not in shapes and not name.startswith(pooler))
    if missing:
        raise InputError(f"{source} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])} …)")
    return model


def _with_adapter(model: nn.Module, folder: Path, source: str) -> PeftModel:
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder}: {ADAPTER_WEIGHTS} is missing")
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: the adapter does not fit {source} ({last_line(error)})") from None
    check_adapter(adapted, folder)
    return adapted


def check_adapter(model: nn.Module, folder: Path) -> None:
    """Raises InputError when the adapter's file in ``folder`` lacks weights that its configuration calls for, or has others: peft
    only warns."""
    adapted = next((module for module in model.modules() if isinstance(module, PeftModel)), None)
    if adapted is None:
        raise InputError(f"{folder} has an adapter that was not put on its base model")
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    names = _shapes(folder / ADAPTER_WEIGHTS)
    odd = {name for name in names if "lora_" in name or name in wanted} ^ wanted  # a file may hold embeddings besides
    if odd:
        shown = ", ".join(sorted(odd)[:3])
        raise InputError(f"the adapter does not fit its base model: {len(odd)} weights differ ({shown} …)")


def _shapes(file: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a safetensors file, by name; nothing of it is loaded."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: not readable: {error}") from None


def _pad(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a tokenizer without a padding token its end token, which the mask hides, and tells the model, on the right."""
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    if (
        model.config.pad_token_id is None
    ):  # a decoder with a classification head looks for the last token that is no padding
        model.config.pad_token_id = tokenizer.pad_token_id
