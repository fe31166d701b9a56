"""Adapters that gpurun never saw: trained and saved by transformers' own Trainer, as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

FAST = {"num_train_epochs": 8, "learning_rate": 0.02, "report_to": [], "save_strategy": "no", "use_cpu": True}


def causal_adapter(base: Path, folder: Path, texts: list[str], targets: list[str] | str, rank: int = 4) -> Path:
    """``folder`` with a LoRA adapter of ``base`` that has learnt the texts, as ``Trainer.save_model`` leaves it: no gpurun.json, no
    tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    lora = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules=targets)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)

    def collate(rows: list[str]) -> dict[str, Any]:
        batch = dict(tokenizer(rows, padding=True, return_tensors="pt"))
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return batch

    return _train_and_save(model, texts, collate, folder)


def teach_base(base: Path, texts: list[str], steps: int = 60) -> Path:
    """Trains all weights of a tiny model of random ones on the texts, so that it knows something that an adapter can change."""
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(base)
    return base


def classifier_adapter(base: Path, folder: Path, texts: list[tuple[str, int]], targets: list[str] | str) -> Path:
    """The same of a sequence classifier (peft's SEQ_CLS): its layers have a prefix, and its head is saved beside them."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    classes = len({label for _, label in texts})
    lora = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=targets)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=classes)

    def collate(rows: list[tuple[str, int]]) -> dict[str, Any]:
        batch = dict(tokenizer([text for text, _ in rows], padding=True, return_tensors="pt"))
        return {**batch, "labels": torch.tensor([label for _, label in rows])}

    return _train_and_save(get_peft_model(network, lora), texts, collate, folder)


def _train_and_save(model: Any, rows: list[Any], collate: Any, folder: Path) -> Path:
    arguments = TrainingArguments(
        output_dir=str(folder.with_name(f"{folder.name}-trainer")),
        remove_unused_columns=False,
        disable_tqdm=True,
        **FAST,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    trainer.train()
    trainer.save_model(str(folder))
    return folder
