"""Models from folders: safetensors only, nobody's code, nothing from the network."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from torch import nn
from transformers import PreTrainedTokenizerBase

from remote_payload.train.model.causal_files import load_causal
from remote_payload.train.model.classifier import load_classifier
from runner.local_model.messages import SmokeRequest
from runner.local_model.weights import read_header
from runner.local_model.worker import Refused

AUTO = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "sequence_classifier": transformers.AutoModelForSequenceClassification,
    "encoder": transformers.AutoModel,
}


def load(request: SmokeRequest, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Model (in evaluation mode, on the device) and tokenizer of the folder. Raises Refused, or InputError of the training code."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    base = str(request.base) if request.base else None
    if request.described and request.kind == "classifier":
        model, tokenizer = load_classifier(request.folder, base, str(device), dtype)
    elif request.described and request.kind == "causal_lm":
        model, tokenizer = load_causal(request.folder, base, device, dtype)
    else:
        model, tokenizer = _load_plain(request, dtype)
    if request.adapter:
        _check_adapter(model, request.folder)
    return model.to(device).eval(), tokenizer


def _load_plain(request: SmokeRequest, dtype: torch.dtype) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A folder that transformers or peft wrote, without a gpurun.json."""
    safe = {"trust_remote_code": False, "local_files_only": True}
    folder = str(request.folder)
    base = str(request.base) if request.base else None
    source = base if request.adapter else folder
    model, about = AUTO[request.kind].from_pretrained(
        source, dtype=dtype, use_safetensors=True, output_loading_info=True, **safe
    )
    # Whoever averages the token vectors leaves the pooler out; any other missing weight was filled with noise by the library.
    missing = sorted(name for name in about["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise Refused(f"{source} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])} …)")
    if request.adapter:
        model = PeftModel.from_pretrained(model, folder, is_trainable=False)
    own = any((request.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return model, transformers.AutoTokenizer.from_pretrained(folder if own or not base else base, **safe)


def _check_adapter(model: nn.Module, folder: Path) -> None:
    """Raises Refused when the adapter's file lacks weights that its configuration calls for, or has others: peft only warns."""
    adapted = next((module for module in model.modules() if isinstance(module, PeftModel)), None)
    if adapted is None:
        raise Refused(f"{folder} has an adapter that was not put on its base model")
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    names = [tensor.name for tensor in read_header(folder / "adapter_model.safetensors")]
    odd = {name for name in names if "lora_" in name or name in wanted} ^ wanted  # a file may hold embeddings besides
    if odd:
        raise Refused(
            f"the adapter does not fit its base model: {len(odd)} weights differ ({', '.join(sorted(odd)[:3])} …)"
        )


def check_weights(model: nn.Module) -> None:
    """Raises Refused when a weight is NaN or infinite."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise Refused(f"the weight {name} holds NaN or infinity")
