"""Model folders as a finished run leaves them, with the box's own predictions, of tiny models; and ways to spoil them."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from remote_payload.settings.training import Lora
from remote_payload.train.download import BaseModel
from remote_payload.train.model.causal_files import save_causal
from remote_payload.train.model.classifier import build_classifier, save_classifier
from remote_payload.train.results.causal_smoke import write_causal_smoke
from remote_payload.train.results.classifier_smoke import write_classifier_smoke
from runner import store
from runner.domain.recorded_job import read_job
from runner.domain.run import Run, mint_id
from tests.support.models.tiny_models import CORPUS, save_tiny_model, tiny_model, tiny_tokenizer

LABELS = ["NON-LEGAL", "LEGAL"]


def classifier_run(root: Path, encoder: str = "bert", *, rank: int = 4) -> Path:
    """``root/models/best``, a classifier on ``root/base`` (named ``base`` in the job): a LoRA, or all of it with rank 0."""
    base = save_tiny_model(encoder, root / "base")
    torch.manual_seed(1)
    model = build_classifier(BaseModel("base", str(base)), len(LABELS), Lora(rank=rank), torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.head.weight.mul_(4)
    folder = root / "models/best"
    folder.mkdir(parents=True)
    about = {"labels": LABELS, "max_length": 64}
    save_classifier(model, tiny_tokenizer(), folder, BaseModel("base", str(base)), about)
    write_classifier_smoke(folder, str(base), CORPUS, torch.device("cpu"))
    return folder


def causal_run(root: Path, *, adapter: bool = True, generated: bool = True) -> Path:
    """``root/models/best``, a Qwen2 with or without a LoRA on ``root/base``.

    Its predictions are made by transformers' ``generate``, which knows nothing of ours, or by the recipes' own code.
    """
    base = save_tiny_model("qwen2", root / "base")
    model: Any = tiny_model("qwen2")
    if adapter:
        torch.manual_seed(2)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(model, config)
    folder = root / "models/best"
    folder.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(base)  # for this model_type it is Qwen's, whatever the folder's own says
    save_causal(model.eval(), tokenizer, folder, BaseModel("base", str(base)), {"recipe": "sft"})
    if generated:
        write_generated(folder, model, tokenizer)
    else:
        prompts = [{"prompt": text, "add_special_tokens": True} for text in CORPUS]
        write_causal_smoke(folder, str(base), prompts, [3], torch.device("cpu"))
    return folder


def write_generated(folder: Path, model: Any, tokenizer: Any, new: int = 12) -> None:
    """What the box predicts, by another way than the smoke test's own."""
    (folder / "smoke").mkdir()
    logits, tokens = [], []
    for text in CORPUS:
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=new, do_sample=False, pad_token_id=1)
            logits.append(model(**ids).logits[0, -1])
        row = out[0, ids["input_ids"].shape[1] :]
        tokens.append(torch.nn.functional.pad(row, (0, new - len(row)), value=-1))
    save_file({"logits": torch.stack(logits), "tokens": torch.stack(tokens)}, folder / "smoke/expected.safetensors")
    rows = [json.dumps({"prompt": text, "add_special_tokens": True}) for text in CORPUS]
    (folder / "smoke/inputs.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "smoke/about.json").write_text(json.dumps({"dtype": "float32", "device": "cpu", "rows": len(CORPUS)}))


def record_fetched(home: Path, outputs: Path | None, code: Path, model: str = "base", **job: Any) -> Run:
    """Puts a run on the record of the gpurun whose state is in ``home``: fetched to ``outputs``, its job relative to ``code``."""
    body = {"name": "legal", "recipe": "classify", "settings": {"model": model}, **job}
    run = Run(mint_id("legal"), read_job(body, code, Path("/x.yaml")), "local", 1e9)
    run.attempted = run.launched = True
    run.fetched_into = str(outputs) if outputs else None
    with patch.dict(os.environ, {"GPURUN_HOME": str(home)}):
        store.create(run)
    return run


class Canary:
    """A pickle that writes ``file`` when somebody opens it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.file), "w"))


def change_tensor(file: Path, name: str, change: Callable[[torch.Tensor], Any]) -> None:
    """Rewrites a safetensors file with one tensor (whose name holds ``name``) changed in place."""
    tensors = load_file(file)
    chosen = next(found for found in sorted(tensors) if name in found)
    change(tensors[chosen])
    save_file(tensors, file, metadata={"format": "pt"})


def flip_bit(file: Path, name: str, bit: int = 30) -> None:
    """Flips one bit of the first number of a tensor: 30 is the highest of an fp32 exponent."""
    raw = bytearray(file.read_bytes())
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    chosen = next(found for found in sorted(header) if name in found)
    at = 8 + length + header[chosen]["data_offsets"][0] + bit // 8
    raw[at] ^= 1 << bit % 8
    file.write_bytes(bytes(raw))
