"""Models from folders: safetensors only, nobody's code, nothing from the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from runner.local_model.weights import read_header
from runner.local_model.worker import Refused

AUTO = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "sequence_classifier": transformers.AutoModelForSequenceClassification,
    "encoder": transformers.AutoModel,
}


def load(request: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model (in evaluation mode, on the device) and tokenizer of the folder, whichever kind it is."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, base = Path(request["folder"]), request["base"]
    if request["described"] and request["kind"] == "classifier":
        from remote_payload.train.model.classifier import load_classifier

        model, tokenizer = load_classifier(folder, base, str(device), dtype)
    elif request["described"] and request["kind"] == "causal_lm":
        from remote_payload.train.model.causal import load_causal

        model, tokenizer = load_causal(folder, base, device, dtype)
    else:
        model, tokenizer = _load_plain(request, folder, base, dtype)
    if request["adapter"]:
        _check_adapter(model, folder)
    return model.to(device).eval(), tokenizer


def _load_plain(request: dict[str, Any], folder: Path, base: str | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """A folder of transformers' or peft's own making."""
    safe = {"trust_remote_code": False, "local_files_only": True}
    source = base if request["adapter"] else str(folder)
    model, about = AUTO[request["kind"]].from_pretrained(
        source, dtype=dtype, use_safetensors=True, output_loading_info=True, **safe
    )
    # A pooler is left out by those who average; anything else that is missing was made up by the library.
    missing = sorted(name for name in about["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise Refused(f"{source} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])} …)")
    if request["adapter"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return model, transformers.AutoTokenizer.from_pretrained(str(folder) if own or not base else base, **safe)


def _check_adapter(model: nn.Module, folder: Path) -> None:
    """Raises Refused when weights that the adapter's configuration calls for are missing, or others are there: peft warns only."""
    from peft import PeftModel, get_peft_model_state_dict

    adapted = next((module for module in model.modules() if isinstance(module, PeftModel)), None)
    if adapted is None:
        raise Refused(f"{folder} has an adapter that was not put on its base model")
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    names = [tensor.name for tensor in read_header(folder / "adapter_model.safetensors")]
    odd = {name for name in names if "lora_" in name or name in wanted} ^ wanted  # embeddings may travel along
    if odd:
        raise Refused(
            f"the adapter does not fit its base model: {len(odd)} weights differ ({', '.join(sorted(odd)[:3])} …)"
        )


def check_weights(model: nn.Module) -> None:
    """Raises Refused when a weight is not a finite number."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise Refused(f"the weight {name} holds NaN or infinity")
