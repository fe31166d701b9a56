"""A model that is used rather than trained: evaluated, asked, exported. One type for every origin, and how it is loaded.

A target is a folder: a model that gpurun saved (``gpurun.json``), a checkpoint of a run (``state.json`` besides), an adapter that peft
saved, or a whole model that transformers saved. A model of the Hub is a folder too once it is downloaded (``download.py``).
Safetensors only, nobody's code, and nothing from the network.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from remote_payload.train.download import BaseFacts
from remote_payload.train.errors import InputError, UnusableModel
from remote_payload.train.inference.plain_model import ADAPTER_WEIGHTS, check_adapter, load_plain
from remote_payload.train.model.causal_files import own_tokenizer
from remote_payload.train.model.classifier import load_classifier
from remote_payload.train.model.model_facts import MODEL_FACTS, ModelFacts, Prompting, prompting_of, read_model_facts
from remote_payload.train.results.checkpoint_model import load_any, load_base, load_classifier_checkpoint

Kind = Literal["classifier", "causal_lm"]
MAX_LENGTH = 512  # tokens of a text, where nothing says how many the model takes


@dataclass(frozen=True)
class Target:
    """A model in eval mode with everything that using it needs.

    ``labels`` are a classifier's classes in the order of its logits; ``threshold`` is the job's ``binary_threshold``: classes from that
    number on are positive. ``max_length`` is in tokens: of a text to classify, or of a language model's training examples.
    ``prompting`` says how a language model was trained to be asked, and at which tokens its answers end. ``base`` is the model that
    training began with, None for one that began with nothing or is itself a base. ``identity`` tells these weights from others.
    """

    name: str
    kind: Kind
    model: Any
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    labels: tuple[int | str, ...] = ()
    threshold: int | None = None
    max_length: int = MAX_LENGTH
    prompting: Prompting = field(default_factory=Prompting)
    base: BaseFacts | None = None
    identity: str = ""

    def logits(self, ids: Tensor, mask: Tensor, padded: bool) -> Tensor:
        """A classifier's logits, fp32 ``[rows, classes]``, of token ids and attention mask ``[rows, length]`` on the target's device.
        ``padded`` says whether the mask hides anything."""
        own = hasattr(self.model, "head") and hasattr(self.model, "encoder")
        found = self.model(ids, mask, padded) if own else self.model(input_ids=ids, attention_mask=mask).logits
        return found.float()

    @property
    def holds_base(self) -> bool:
        """Whether the network with its adapter switched off is the base; peft cannot switch off biases that were trained."""
        configs = self.model.peft_config.values() if isinstance(self.model, PeftModel) else ()
        return bool(configs) and all(getattr(config, "bias", "none") == "none" for config in configs)

    @property
    def end_tokens(self) -> list[int]:
        """The tokens at which a language model's answer ends: those of its training, else what the model itself says."""
        return list(self.prompting.get("end_tokens") or end_tokens_of(self.model, self.tokenizer))


def end_tokens_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end tokens of the model's generation settings, and the tokenizer's."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*several, tokenizer.eos_token_id) if token is not None})


def load_target(
    folder: str | Path,
    *,
    name: str = "",
    base_path: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ask_base: bool = False,
) -> Target:
    """The model in ``folder`` on ``device``, its weights in ``dtype``; it is called ``name``, by itself as the folder is.

    ``base_path`` is where the base model of an adapter lies; without it the base is what the folder names. ``ask_base`` loads that base
    without the adapter, to be asked as the trained model is. Raises InputError for a folder that holds no such model, that lacks a
    file, or whose adapter is for another base; and with ``ask_base`` for a classifier, whose head training made.
    """
    folder, device = Path(folder), torch.device(device)
    path = str(base_path) if base_path else None
    name = name or folder.name
    load = _own if (folder / MODEL_FACTS).is_file() else _plain
    try:
        target = load(name, folder, path, device, dtype, ask_base)
    except UnusableModel as error:
        raise InputError(f"{name}: {error.reason}") from None
    if (folder / MODEL_FACTS).is_file() and (folder / ADAPTER_WEIGHTS).is_file() and not ask_base:
        check_adapter(target.model, folder)
    return replace(target, identity=_identity(folder))


def _own(name: str, folder: Path, path: str | None, device: torch.device, dtype: torch.dtype, ask_base: bool) -> Target:
    """A model or checkpoint that gpurun saved."""
    about = read_model_facts(folder)
    if about.get("kind") == "classifier":
        if ask_base:
            raise InputError(f"{folder}: a classifier's base has no classes, so it cannot be asked")
        return _classifier(name, folder, about, path, device, dtype)
    prompting, base = prompting_of(about), about.get("base")
    if not ask_base:
        network, tokenizer = load_any(folder, path, device, dtype)
    else:
        network, tokenizer = load_base(folder, path, device, dtype), own_tokenizer(folder)
    longest = prompting.get("max_length") or MAX_LENGTH
    return Target(
        name, "causal_lm", network, tokenizer, device, dtype, max_length=longest, prompting=prompting, base=base
    )


def _classifier(
    name: str, folder: Path, about: ModelFacts, base_path: str | None, device: torch.device, dtype: torch.dtype
) -> Target:
    load = load_classifier_checkpoint if (folder / "state.json").is_file() else load_classifier
    model, tokenizer = load(folder, base_path, str(device), dtype)
    return Target(
        name, "classifier", model, tokenizer, device, dtype,
        labels=tuple(about["labels"]), threshold=about.get("binary_threshold"), max_length=about["max_length"], base=about.get("base"),
    )  # fmt: skip


def _plain(
    name: str, folder: Path, base_path: str | None, device: torch.device, dtype: torch.dtype, ask_base: bool
) -> Target:
    plain = load_plain(folder, base_path, dtype, ask_base=ask_base)
    model, tokenizer = plain.model.to(device).eval(), plain.tokenizer
    if plain.kind == "causal_lm":
        prompting: Prompting = {"chat": bool(tokenizer.chat_template), "end_tokens": end_tokens_of(model, tokenizer)}
        return Target(name, "causal_lm", model, tokenizer, device, dtype, prompting=prompting, base=plain.base)
    names = model.config.id2label
    labels = tuple(names[index] for index in sorted(names))
    return Target(
        name, "classifier", model, tokenizer, device, dtype,
        labels=labels, max_length=_longest_text(model, tokenizer), base=plain.base,
    )  # fmt: skip


def _identity(folder: Path) -> str:
    """A digest of the weights' files: of their sizes, and the first and last MiB of each, since whole ones may be tens of GB."""
    sha256 = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(1 << 20)
            file.seek(max(0, size - (1 << 20)), os.SEEK_SET)
            sha256.update(b"%s %d" % (path.name.encode(), size) + head + file.read())
    return sha256.hexdigest()[:16]


def _longest_text(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that model and tokenizer both take; a tokenizer that was told nothing says 10^30."""
    told = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    return min([each for each in told if each and each < 1 << 20], default=MAX_LENGTH)
