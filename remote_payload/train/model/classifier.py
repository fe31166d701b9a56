"""A text classifier: a pretrained encoder, the mean of its token vectors, and one linear layer. Also how it is saved and loaded.

models/best/
  gpurun.json                    what this is: base model, labels, lengths
  adapter_config.json            with LoRA: peft's files
  adapter_model.safetensors
  config.json model.safetensors  without LoRA: the whole encoder, with the head where transformers has a class for both
  head.safetensors               weight [classes, hidden] and bias, fp32
  tokenizer files
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from remote_payload.settings.training import Lora
from remote_payload.train.download import BaseFacts, BaseModel, base_source
from remote_payload.train.errors import InputError, UnusableModel
from remote_payload.train.files import sha256_of
from remote_payload.train.model.lora import add_lora, save_adapter
from remote_payload.train.model.model_facts import FORMAT, ModelFacts, read_model_facts, write_model_facts
from remote_payload.train.model.padding import PADDED, known_padding
from remote_payload.train.model.precision import full_precision
from remote_payload.train.model.standard_classifier import standard_classifier


class Classifier(nn.Module):
    """``forward(input_ids, attention_mask)`` gives logits [rows, classes] in fp32, whatever the encoder computes in.

    ``padded`` says whether the mask hides anything; without it the host waits for the device to tell.
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, classes, dtype=torch.float32)

    @property
    def lora_rank(self) -> int:
        """The rank of the encoder's adapter; 0 where it has none and all of it is trained."""
        configs = getattr(self.encoder, "peft_config", None)
        return configs["default"].r if configs else 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, padded: bool | None = None) -> Tensor:
        with known_padding(padded):
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        with full_precision(hidden.device):
            # The cast that keeps a bf16 encoder from meeting an fp32 head ("mat1 and mat2 must have the same dtype").
            mask = attention_mask.unsqueeze(-1).float()
            mean = (hidden.float() * mask).sum(1) / mask.sum(1).clamp(min=1.0)
            return self.head(mean)


def load_encoder(path: str, dtype: torch.dtype, **options: Any) -> Any:
    """The encoder alone, without pooler or language-model head, from safetensors and without anybody's code."""
    try:
        encoder = AutoModel.from_pretrained(path, dtype=dtype, trust_remote_code=False, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UnusableModel(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None
    return _plain_encoder(encoder)


def encoder_of_config(folder: str | Path, dtype: torch.dtype) -> Any:
    """The same encoder with weights at random, from its config.json alone: a checkpoint's weights are put into it."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    return _plain_encoder(AutoModel.from_config(config, dtype=dtype))


def _plain_encoder(encoder: Any) -> Any:
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # we take the mean; BERT's own would be weights that nothing trains
    if hasattr(encoder.config, "use_cache"):
        encoder.config.use_cache = False
    if encoder.config._attn_implementation == "sdpa":
        encoder.set_attn_implementation(PADDED)
    return encoder


def load_tokenizer(path: str, **options: Any) -> Any:
    """The tokenizer, padding on the right. Raises InputError for one that cannot pad or has no fast implementation."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UnusableModel(f"the tokenizer of {path} cannot be loaded: {str(error).splitlines()[0]}") from None
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UnusableModel(f"the tokenizer of {path} has neither a pad token nor an end token to pad with")
        tokenizer.pad_token = tokenizer.eos_token  # the mask hides it
    tokenizer.padding_side = "right"
    return tokenizer


def build_classifier(base: BaseModel, classes: int, lora: Lora, compute: torch.dtype) -> Classifier:
    """A classifier ready to train: base frozen in the compute dtype with fp32 adapters, or all of it in fp32 when rank is 0."""
    encoder = load_encoder(base.path, dtype=compute if lora.rank else torch.float32)
    if lora.rank:
        encoder = add_lora(encoder, lora, "FEATURE_EXTRACTION")
    return Classifier(encoder, classes)


def longest_input(encoder: Any) -> int | None:
    """How many tokens the encoder's learned positions allow; None where positions are rotary."""
    config = encoder.config
    learned = any("position_embeddings" in name for name, _ in encoder.named_parameters())
    return config.max_position_embeddings if learned else None


def save_classifier(model: Classifier, tokenizer: Any, folder: Path, base: BaseModel, about: ModelFacts) -> None:
    """Everything that ``load_classifier`` needs; ``about`` has at least ``labels`` and ``max_length``."""
    adapter = hasattr(model.encoder, "peft_config")
    if adapter:
        save_adapter(model.encoder, folder, base)
    else:
        standard = standard_classifier(model.encoder, model.head, about["labels"])
        (standard or model.encoder).save_pretrained(folder)
    save_file({name: tensor.detach().float().cpu().contiguous() for name, tensor in model.head.state_dict().items()},
              folder / "head.safetensors")  # fmt: skip
    tokenizer.save_pretrained(folder)
    write_model_facts(folder, {**classifier_facts(base, adapter), **about})


def classifier_facts(base: BaseModel, adapter: bool) -> ModelFacts:
    """The part of gpurun.json that every classifier has."""
    return {
        "format": FORMAT, "recipe": "classify", "kind": "classifier", "base": base.as_dict(), "adapter": adapter,
        "head": "head.safetensors", "pooling": "mean", "dtype": "float32",
    }  # fmt: skip


def load_classifier(
    folder: str | Path, base_path: str | Path | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Classifier, Any]:
    """The model and tokenizer that ``save_classifier`` wrote, in eval mode on ``device``, the encoder in ``dtype``.

    ``base_path`` is where the base model lies here, when the job named a folder; a model of the Hub comes from its cache. Raises
    InputError for a folder that is no classifier, or a base model that is not the one it was trained on.
    """
    folder = Path(folder)
    about = read_model_facts(folder, "classifier")
    if about["adapter"]:
        from peft import PeftModel

        base = about["base"] or {}
        source, revision = base_source(base, base_path)
        check_base(source, base)
        encoder = load_encoder(source, dtype, revision=revision)
        if not (folder / "adapter_model.safetensors").is_file():
            raise InputError(f"{folder}: adapter_model.safetensors is missing")
        try:
            encoder = PeftModel.from_pretrained(encoder, str(folder), autocast_adapter_dtype=False)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{folder}: the adapter does not fit {source}: {str(error).splitlines()[0]}") from None
    else:
        encoder = load_encoder(str(folder), dtype)
    model = Classifier(encoder.to(dtype), len(about["labels"]))
    model.head.load_state_dict(load_file(folder / "head.safetensors"))
    return model.to(device).eval(), load_tokenizer(str(folder))


def check_base(source: str, base: BaseFacts) -> None:
    """Raises InputError for a folder whose weights are not those of the ``base`` that an adapter was trained on."""
    weights = Path(source) / "model.safetensors"
    if base.get("sha256") and weights.is_file() and sha256_of(weights) != base["sha256"]:
        raise InputError(
            f"{source} is not the base model this adapter was trained on ({base['id']}): its weights differ"
        )
