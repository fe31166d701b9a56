"""Training steps of the language models beside transformers' Trainer and a plain loop; the memory of evaluating.

    python -m tests.benchmarks.bench_train [--quick]

Real tokens a second, in one process by turns. On ragged texts the Trainer computes padding and we do not, so the bound is four
fifths of what that alone is worth.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel, Qwen2Config

from remote_payload.settings.pretrain import PretrainSettings
from remote_payload.settings.sft import SftSettings
from remote_payload.settings.training import Lora
from remote_payload.train.data.packing import IGNORED, Document
from remote_payload.train.distributed import World
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.lora import add_lora
from remote_payload.train.tasks.packed_task import PackedTask
from remote_payload.train.tasks.rows import RowTask, TokenRows
from tests.benchmarks.measure import Row, compare, rounds, run_piece
from tests.benchmarks.training.plain_gpt import GPT, plain_loop
from tests.benchmarks.training.trainer import DEVICE, beside_trainer, ours, trainer

BATCH, LENGTH, VOCABULARY = 8, 128, 8000
SHAPE = {"layers": 4, "width": 256, "heads": 4}
LARGE_VOCABULARY, EVALUATED = 151_936, (8, 1024)  # the report's evaluation batch: 4.6 GiB of fp32 logits


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    yield evaluation_memory()
    steps = 6 if quick else 10
    yield sft("fixed", [LENGTH] * BATCH * steps, quick)
    yield sft("ragged", ragged(BATCH * steps), quick)
    yield pretrain_beside_trainer(steps, quick)
    yield pretrain_beside_plain_loop(steps, quick)


def ragged(count: int) -> list[int]:
    """Lengths as conversations have them: log-normal, 8 tokens to the limit."""
    generator = random.Random(0)
    return [min(LENGTH, max(8, int(generator.lognormvariate(3.9, 0.8)))) for _ in range(count)]


# Supervised fine-tuning: a Qwen2 with LoRA, the loss on the second half of each text.


def sft(name: str, lengths: list[int], quick: bool) -> Row:
    documents, model = [document(length, index) for index, length in enumerate(lengths)], qwen()
    return beside_trainer(
        f"sft step, {name} lengths, tokens a second",
        lengths,
        BATCH,
        lambda: sft_ours(copy.deepcopy(model), documents),
        lambda: trainer(copy.deepcopy(model), [as_row(each) for each in documents], BATCH, pad),
        quick,
    )


def document(length: int, seed: int, vocabulary: int = VOCABULARY) -> Document:
    ids = random.Random(seed).choices(range(4, vocabulary), k=length)
    return Document(ids, [place >= length // 2 for place in range(length)])


def qwen(vocabulary: int = VOCABULARY) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    return add_lora(AutoModelForCausalLM.from_config(config), Lora(rank=8, alpha=16), "CAUSAL_LM")


def sft_ours(model: Any, documents: list[Document]) -> float:
    model.get_base_model().set_attn_implementation(ATTENTION)
    settings = without_pauses(SftSettings(model="m", train="t", epochs=1))
    return ours(settings, "sft", CausalLoss(model).to(DEVICE), packed(documents, documents[:1]))


def packed(documents: list[Document], held_out: list[Document], length: int = LENGTH) -> PackedTask:
    world = World.from_environment(DEVICE)
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    return PackedTask(world, documents, held_out, batch=BATCH, max_length=length, seed=0, dtype=dtype)


def without_pauses(settings: Any) -> Any:
    """Nothing but steps: no evaluation, no checkpoint before the end."""
    settings.batch.size = BATCH
    settings.evaluation.every_epochs = settings.checkpoint.every_epochs = None
    return settings


def as_row(one: Document) -> dict[str, Any]:
    labels = [token if learnt else IGNORED for token, learnt in zip(one.ids, one.learn, strict=True)]
    return {"input_ids": one.ids, "labels": labels, "attention_mask": [1] * len(one)}


def pad(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in batch)
    fill = {"input_ids": 0, "labels": IGNORED, "attention_mask": 0}
    return {
        name: torch.tensor([row[name] + [value] * (width - len(row[name])) for row in batch])
        for name, value in fill.items()
    }


# Pretraining: a GPT-2 in full, rows of one length.


def pretrain_beside_trainer(steps: int, quick: bool) -> Row:
    ids, model = tokens(steps), gpt2()
    each = [{"input_ids": torch.from_numpy(row.astype(np.int64))} for row in ids]
    for row in each:
        row["labels"] = row["input_ids"]
    row = compare(
        "pretrain step, tokens a second",
        lambda: pretrain_ours(copy.deepcopy(model), ids),
        lambda: trainer(copy.deepcopy(model), each, BATCH),
        count=rounds(quick), unit="tokens/s", bound=1.0, more_is_better=True,
    )  # fmt: skip
    return replace(row, against="the Trainer")


def pretrain_beside_plain_loop(steps: int, quick: bool) -> Row:
    ids, model = tokens(steps), gpt2()
    torch.manual_seed(0)
    plain = GPT(VOCABULARY, LENGTH, **SHAPE)
    row = compare(
        "pretrain step beside a plain loop, tokens a second",
        lambda: pretrain_ours(copy.deepcopy(model), ids),
        lambda: plain_loop(copy.deepcopy(plain), ids.reshape(-1), BATCH, LENGTH, steps),
        count=rounds(quick), unit="tokens/s", bound=1.0, more_is_better=True,
    )  # fmt: skip
    return replace(row, against="a nanoGPT-shaped loop")


def tokens(steps: int) -> np.ndarray:
    return np.random.default_rng(0).integers(4, VOCABULARY, (BATCH * steps, LENGTH)).astype(np.uint16)


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=SHAPE["width"], n_layer=SHAPE["layers"], n_head=SHAPE["heads"],
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        activation_function="gelu_pytorch_tanh",  # as the recipe builds it
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def pretrain_ours(model: PreTrainedModel, ids: np.ndarray) -> float:
    model.set_attn_implementation(ATTENTION)
    settings = without_pauses(PretrainSettings(corpus="c", epochs=1))
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    task = RowTask(settings, World.from_environment(DEVICE), TokenRows(ids), dtype, lambda network, size: {"loss": 0.0})
    return ours(settings, "pretrain", CausalLoss(model).to(DEVICE), task)


# Evaluation: what S1's report ran out of memory with.


def evaluation_memory() -> Row:
    """Peak memory of evaluating, over the size of the logits that a whole batch of fp32 would have."""
    count, length = EVALUATED
    documents = [document(length, index, LARGE_VOCABULARY) for index in range(count)]
    everything = [replace(each, learn=[True] * length) for each in documents]
    model = qwen(LARGE_VOCABULARY)
    model.get_base_model().set_attn_implementation(ATTENTION)
    loss: nn.Module = CausalLoss(model).to(DEVICE).eval()
    task = packed(everything[:1], everything, length)
    task.measure(loss, everything[:1], 1)  # what libraries keep after their first use is not evaluation's
    before = reset_peak()
    task.measure(loss, everything, count)
    whole = count * length * LARGE_VOCABULARY * 4
    name = f"evaluation of {count} x {length} tokens over {LARGE_VOCABULARY:,} words, peak memory"
    return Row(name, (peak() - before) / 2**20, whole / 2**20, "MiB", 0.25, against="of whole logits")


def reset_peak() -> int:
    """Bytes in use now; from here on ``peak`` counts."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    return resident("VmRSS")


def peak() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else resident("VmHWM")


def resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field))) * 1024


if __name__ == "__main__":
    main()
