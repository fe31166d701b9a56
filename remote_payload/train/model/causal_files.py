"""Loading causal language models from the Hub or a folder, and saving them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.train.download import BaseModel, base_source
from remote_payload.train.errors import InputError, UnusableModel
from remote_payload.train.files import read_json_object
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import Network, plain_head
from remote_payload.train.model.lora import in_fp32, last_line, put_weights, save_adapter
from remote_payload.train.model.model_facts import (
    FORMAT,
    ModelFacts,
    Prompting,
    WeightsFacts,
    read_model_facts,
    write_model_facts,
)

transformers.utils.logging.disable_progress_bar()  # a log is no terminal
# peft 0.21 asks for the attribute by the name that transformers 5.23 renamed; nothing for our users to act on.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def load_config(model: str, revision: str | None = None) -> Any:
    """The model's config. Raises InputError when there is no such model, or none that generates text."""
    with _explained(model):
        return AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)


def load_tokenizer(
    model: str,
    revision: str | None = None,
    *,
    chat: bool,
    chat_template: str | None = None,
    pad_token: str | None = None,
) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token and, for ``chat``, a chat template.

    ``chat_template`` is a Jinja file that replaces the tokenizer's, ``pad_token`` a token of its vocabulary. Raises InputError
    naming the setting that supplies what is missing.
    """
    with _explained(model):
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise UnusableModel(f"{model} has no fast tokenizer, so its tokens cannot be traced to the text")
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise InputError(f"settings.pad_token: {pad_token!r} is not in the vocabulary of {model}")
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        example = f", for example {tokenizer.eos_token!r}" if tokenizer.eos_token else ""
        raise InputError(f"settings.pad_token: the tokenizer of {model} has no padding token; name one{example}")
    if tokenizer.eos_token_id is None:
        raise UnusableModel(f"the tokenizer of {model} has no end token, so no answer would ever end")
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    if chat and not tokenizer.chat_template:
        raise InputError(
            f"settings.chat_template: the tokenizer of {model} has no chat template; name a Jinja file with one, or give "
            "settings.prompt_template for data of prompts and completions"
        )
    return tokenizer


def _read_template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"settings.chat_template: {path}: {error}") from None


def own_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's own folder."""
    with _explained(str(folder)):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def load_network(
    model: str, revision: str | None = None, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The model with weights of ``dtype`` on ``device``, attending as packing needs it. Safetensors only, no remote code."""
    with _explained(model):
        network = AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=dtype,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            trust_remote_code=False,
        )
    return network.to(device)


def check_length(network: PreTrainedModel, max_length: int) -> None:
    """Raises InputError for texts that the model has no positions for (GPT-2's are learned)."""
    positions = getattr(network.config, "n_positions", None)
    if positions is not None and max_length > positions:
        raise InputError(f"settings.max_length: {max_length}, but this model has {positions} positions")


def load_adapter(network: PreTrainedModel, folder: str | Path, *, trainable: bool = False) -> PeftModel:
    """The adapter in ``folder`` on its base model. Raises InputError when it is incomplete or made for another base."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):  # without the second peft would look for a pickle
        if not (Path(folder) / name).is_file():
            raise InputError(f"{folder}: no adapter here, {name} is missing")
    try:
        adapted = PeftModel.from_pretrained(network, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        made_for = read_json_object(Path(folder) / "adapter_config.json").get("base_model_name_or_path")
        own = getattr(network.config, "_name_or_path", "") or network.config.model_type
        raise InputError(f"{folder}: the adapter was made for {made_for}, not for {own} ({last_line(error)})") from None
    if trainable:
        plain_head(adapted)
        # peft only warns of weights that are missing or left over
        put_weights(adapted, load_file(Path(folder) / "adapter_model.safetensors"), folder)
        in_fp32(adapted)
    return adapted


def save_causal(
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    base: BaseModel | None,
    prompting: Prompting,
    weights: WeightsFacts | None = None,
) -> None:
    """What ``load_causal`` needs: adapter or whole model as safetensors, the tokenizer with its template, gpurun.json.

    ``prompting`` and ``weights`` go into gpurun.json. A model trained from nothing has no base.
    """
    adapter = isinstance(network, PeftModel)
    if adapter and base:
        save_adapter(network, folder, base)
    else:
        network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    dtype = str(network.dtype).removeprefix("torch.")
    write_model_facts(folder, {**causal_facts(base, adapter), "dtype": dtype, **prompting, **(weights or {})})


def causal_facts(base: BaseModel | None, adapter: bool) -> ModelFacts:
    """The part of gpurun.json that every causal language model has."""
    return {"format": FORMAT, "kind": "causal_lm", "base": base.as_dict() if base else None, "adapter": adapter}


def load_saved(network: Network, folder: Path) -> None:
    """Loads the weights that ``save_causal`` wrote of this very network back into it."""
    if isinstance(network, PeftModel):
        set_peft_model_state_dict(network, load_file(folder / "adapter_model.safetensors"))
    else:
        network.load_state_dict(load_network(str(folder), dtype=network.dtype).state_dict())


def load_causal(
    folder: str | Path,
    base_path: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Network, PreTrainedTokenizerBase]:
    """Model (in eval mode) and tokenizer of a folder that a recipe saved: ``gpurun.json`` describes it.

    ``base_path`` is where the base model of an adapter lies; without it the base is what gpurun.json names. Raises InputError
    for a folder that is no causal language model, or an adapter for another base.
    """
    folder = Path(folder)
    about = read_model_facts(folder, "causal_lm")
    tokenizer = own_tokenizer(folder)
    if not about.get("adapter"):
        return load_network(str(folder), device=device, dtype=dtype).eval(), tokenizer
    source, revision = base_source(about.get("base") or {}, base_path)
    network = load_network(source, revision, device=device, dtype=dtype)
    return load_adapter(network, folder).to(device).eval(), tokenizer


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turns transformers' errors about a model that cannot be loaded into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnusableModel(f"{model} cannot be loaded: {first}") from error
