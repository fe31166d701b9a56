"""Models to export, and the process that exports them replaced by a call: a test then takes a second and not ten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from remote_payload.train.download import BaseModel
from remote_payload.train.model.causal_files import save_causal
from remote_payload.train.model.greedy_decoding import SmokePrompt
from remote_payload.train.results.causal_smoke import write_causal_smoke
from runner.local_model.messages import Message, Progress, Request
from runner.local_model.worker import Refused
from runner.local_model.worker.__main__ import answer
from runner.workflow.exporting import merged
from runner.workflow.inference import smoke
from tests.support.models.tiny_models import CORPUS, sentencepiece_tokenizer, tiny_model, tiny_tokenizer


class Called:
    """Answers a request in this process; the real one is in ``test_export_command.py``."""

    def __init__(self, request: Request, error: type[Exception]) -> None:
        self.request, self.error = request, error

    def receive(self, kind: type[Message], progress: Callable[[Progress], None] = lambda _: None) -> Message:
        sent: list[Message] = []
        try:
            answer(self.request, sent.append)
        except Refused as error:
            raise self.error(str(error)) from None
        (found,) = [each for each in sent if isinstance(each, kind)]
        return found


def call_instead_of_a_process(patch: pytest.MonkeyPatch) -> None:
    """From here on models are loaded in this process."""

    @contextmanager
    def called(request: Request, error: type[Exception], **_: str) -> Iterator[Called]:
        yield Called(request, error)

    for module in (merged, smoke):
        patch.setattr(module, "model_process", called)


def peft_adapter(root: Path, name: str, targets: list[str], *, tied: bool, **lora: Any) -> Path:
    """``root/adapter``, a random LoRA as peft saves it, on ``root/base``: a tiny language model, ``tied`` or not."""
    torch.manual_seed(0)
    base = tiny_model(name)
    base.config.tie_word_embeddings = tied
    model = type(base)(base.config).eval()
    model.save_pretrained(root / "base")
    tiny_tokenizer().save_pretrained(root / "base")
    model.name_or_path = str(root / "base")
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False, **lora)
    get_peft_model(model, config).save_pretrained(root / "adapter", save_embedding_layers=False)
    return root / "adapter"


def spoil(folder: Path, seed: int, matrices: int = 1) -> None:
    """Adds noise twice as large as itself to some matrices of the folder's weights, chosen at random."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(seed)
    named = sorted(name for name, tensor in tensors.items() if tensor.ndim == 2 and used(name))
    for index in torch.randperm(len(named), generator=generator)[:matrices].tolist():
        tensor = tensors[named[index]]
        noise = torch.randn(tensor.shape, generator=generator)
        tensors[named[index]] = (tensor + noise * 2 * tensor.float().std()).to(tensor.dtype)
    save_file(tensors, file, metadata={"format": "pt"})


def used(name: str) -> bool:
    """Whether a prediction depends on these weights: not on positions that no text reaches, token types that none has, a pooler."""
    return not any(part in name for part in ("position_embeddings", "token_type", "pooler", "embed_tokens"))


def llama_base(folder: Path, head_scale: float = 1.0) -> Any:
    """A Llama of random weights that llama.cpp can load, saved in ``folder``; also the model itself.

    256 wide, as K-quants need rows of whole blocks.
    """
    torch.manual_seed(0)
    tokenizer = sentencepiece_tokenizer()
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer), **shape, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(head_scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def llama_run(root: Path, adapter: bool = True) -> Path:
    """``root/models/best``, ``llama_base`` with or without a LoRA on ``root/base``, and the box's predictions.

    Its head is scaled so that answers differ as those of a trained model do.
    """
    base = root / "base"
    model = llama_base(base, head_scale=20)
    tokenizer = sentencepiece_tokenizer()
    if adapter:
        lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(model, lora)
    folder = root / "models/best"
    folder.mkdir(parents=True)
    save_causal(model.eval(), tokenizer, folder, BaseModel("base", str(base)), {"recipe": "sft", "end_tokens": [2]})
    prompts: list[SmokePrompt] = [{"prompt": text, "add_special_tokens": True} for text in CORPUS]
    write_causal_smoke(folder, str(base), prompts, [2], torch.device("cpu"))
    return folder
