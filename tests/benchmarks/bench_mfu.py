"""Model FLOPs utilisation of the five systems at their real shapes, against the goals: on a GPU; elsewhere "not measured".

    python -m tests.benchmarks.bench_mfu [--quick]

Random weights and tokens, the job files' lengths and batches, the recipes' own loop. Real tokens only, 6·N FLOPs for a whole model
and 4·N for a frozen one under LoRA, plus attention and head (remote_payload/train/loop/flops.py); recomputation is not counted, and
attention counts in full: a causal mask does not halve it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Olmo2Config,
    Qwen2Config,
)

from remote_payload.recipes.classify import ClassifyTask
from remote_payload.settings.classify import ClassifySettings
from remote_payload.settings.pretrain import PretrainSettings
from remote_payload.settings.training import Lora
from remote_payload.train.data.labelled import Example, LabelledTexts, Tokenised
from remote_payload.train.distributed import World
from remote_payload.train.loop.flops import flops_per_token
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.classifier import Classifier
from remote_payload.train.model.lora import add_lora
from remote_payload.train.model.precision import checkpoint_activations
from remote_payload.train.state.progress import Outcome
from remote_payload.train.tasks.rows import RowTask, TokenRows
from tests.benchmarks.measure import Row, run_piece
from tests.benchmarks.training.trainer import DEVICE, outcome

EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUERIES = EVERY[:4]


@dataclass(frozen=True)
class System:
    """One of the five: how it is built, a step's rows and their tokens, and the share of the peak that is the goal."""

    name: str
    config: Callable[[], Any]
    batch: int
    length: int
    goal: float
    lora: Lora | None = None
    recompute: bool = False


def gpt2(layers: int, width: int, heads: int, length: int) -> Callable[[], GPT2Config]:
    return lambda: GPT2Config(
        vocab_size=30_000, n_positions=length, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=None, eos_token_id=None, activation_function="gelu_pytorch_tanh",
    )  # fmt: skip


def llama_like(kind: Any, **more: Any) -> Callable[[], Any]:
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    widths = more.pop("widths")
    return lambda: kind(**dict(zip(names, widths, strict=True)), **more)


GEMMA = llama_like(
    Gemma3TextConfig, widths=(262_144, 768, 1152, 24, 3, 1), head_dim=256, sliding_window=512, use_bidirectional_attention=True
)  # fmt: skip
QWEN = llama_like(Qwen2Config, widths=(151_936, 896, 4864, 24, 14, 2), tie_word_embeddings=True)
OLMO = llama_like(Olmo2Config, widths=(100_352, 4096, 11_008, 32, 32, 32))
SMOL = llama_like(LlamaConfig, widths=(49_152, 576, 1536, 30, 9, 3), tie_word_embeddings=True)
CLASSIFIER = System(
    "S0 legal, 2048 tokens", GEMMA, 32, 2048, 0.30, Lora(rank=16, alpha=32, dropout=0.1, targets=QUERIES)
)
SYSTEMS = (
    System("S1 brie, 1024 tokens packed", QWEN, 5, 1024, 0.40, Lora(rank=8, alpha=16, dropout=0.05, targets=QUERIES)),
    System("S2 death dates, 2048 tokens", OLMO, 8, 2048, 0.45, recompute=True),
    System("S3 london, small", gpt2(12, 768, 12, 512), 36, 512, 0.45),
    System("S3 london, regular", gpt2(24, 1024, 16, 1024), 16, 1024, 0.50),
)
EDGEJSON = System("S4 edgejson", SMOL, 32, 1024, 0.0, Lora(rank=16, alpha=32, dropout=0.1, targets=EVERY))
FORTY_EIGHT_STEPS = 5.0  # seconds: its goal is a time


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    steps = 6 if quick else 30
    yield row(CLASSIFIER, lambda: classifier_mfu(CLASSIFIER, steps))
    for system in SYSTEMS:
        yield row(system, lambda system=system: causal(system, steps).mfu)
    seconds = causal(EDGEJSON, 48).seconds if DEVICE == "cuda" else None
    yield Row(
        f"{EDGEJSON.name}, 48 steps of 32 x 1024 tokens",
        seconds,
        FORTY_EIGHT_STEPS,
        "s",
        1.0,
        against="the goal",
        note=where(),
    )


def row(system: System, measure: Callable[[], float | None]) -> Row:
    share = measure() if DEVICE == "cuda" else None
    name, unit = f"MFU of {system.name}", "of the peak"
    return Row(name, share, system.goal, unit, 1.0, more_is_better=True, against="the goal", note=where())


def where() -> str:
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU on this machine"


def causal(system: System, steps: int) -> Outcome:
    torch.manual_seed(0)
    settings = settings_of(PretrainSettings(corpus="c", epochs=1), system)
    dtype = torch.bfloat16 if system.lora or system.recompute else torch.float32
    network = AutoModelForCausalLM.from_config(system.config(), attn_implementation=ATTENTION, dtype=dtype)
    if system.lora:
        network = add_lora(network, system.lora, "CAUSAL_LM")
    if system.recompute:
        checkpoint_activations(network)
    model = CausalLoss(network).to(DEVICE)
    ids = np.random.default_rng(0).integers(4, 29_000, (system.batch * steps, system.length)).astype(np.uint16)
    world = World.from_environment(DEVICE)
    task = RowTask(settings, world, TokenRows(ids), torch.bfloat16, lambda network, size: {"loss": 0.0})
    work = flops_per_token(network, model.head, [system.length], counted=system.length - 1)
    return outcome(settings, "pretrain", model, task, work)


def classifier_mfu(system: System, steps: int) -> float | None:
    torch.manual_seed(0)
    settings = settings_of(ClassifySettings(model="m", train="t", epochs=1, max_length=system.length), system)
    count = system.batch * steps
    encoder = add_lora(AutoModel.from_config(system.config(), dtype=torch.bfloat16), system.lora, "FEATURE_EXTRACTION")
    model = Classifier(encoder, 6).to(DEVICE)
    ids = np.random.default_rng(0).integers(4, 29_000, (count, system.length)).tolist()
    side, few = Tokenised(ids, [0, 1] * (count // 2), 0), Tokenised(ids[:2], [0, 1], 0)
    data = LabelledTexts([Example("", 0)] * count, [], list(range(6)), [])
    task = ClassifyTask(settings, World.from_environment(DEVICE), data, [side, few], 0, torch.bfloat16)
    work = flops_per_token(encoder, model.head.weight, [system.length], counted=1)
    return outcome(settings, "classify", model, task, work).mfu


def settings_of(settings: Any, system: System) -> Any:
    settings.batch.size = system.batch
    settings.evaluation.every_epochs = settings.checkpoint.every_epochs = None
    return settings


if __name__ == "__main__":
    main()
