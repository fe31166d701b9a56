"""What a model loses when its weights are kept in bf16, beside fp32: with gpurun's stochastic rounding, and with rounding to nearest.

    python -m tests.benchmarks.bench_bf16 [--quick]

A tiny Llama learns one Markov chain in fp32, then another one with each optimizer, at a fine-tuning rate with warm-up and linear
decay: updates smaller than the distance between two bf16 numbers, as in a real fine-tune. Products are in fp32 for all, so
that only storage and rounding differ. The figure is the loss on held-out text, as a distance in nats to fp32.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from remote_payload.settings.training import Optimizer
from remote_payload.train.state.optimizer import build_optimizer
from tests.benchmarks.measure import Row, run_piece

WORDS, LENGTH, ROWS, STEPS, RATE = 128, 32, 16, 400, 3e-4
CPU = torch.device("cpu")


def main() -> None:
    torch.set_num_threads(1)
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    start = trained(new_model(), chain(1), 0, "fp32", 2e-3)
    start = start.bfloat16().float()  # where all begin can be held in bf16
    lost: dict[str, list[float]] = {"stochastic": [], "nearest": []}
    for seed in range(1 if quick else 3):
        exact = held_out_loss(trained(start, chain(2), seed, "fp32", RATE))
        for rounding, distances in lost.items():
            found = held_out_loss(trained(start, chain(2), seed, rounding, RATE))
            distances.append(found - exact)
    for rounding, bound in (("stochastic", 0.01), ("nearest", None)):
        yield Row(
            f"loss of a fine-tune with bf16 weights, rounding {rounding}: distance to fp32",
            statistics.mean(lost[rounding]), 1.0, "nats", bound, against="allowed", samples={rounding: lost[rounding]},
        )  # fmt: skip


def new_model() -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def chain(seed: int) -> Tensor:
    """``[WORDS, WORDS]``: the probability of each word after each."""
    return torch.softmax(3 * torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed)), -1)


def text(words: Tensor, count: int, seed: int) -> Tensor:
    """``[count, LENGTH]``: rows that follow the chain."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(WORDS, (count,), generator=generator)]
    for _ in range(LENGTH - 1):
        drawn.append(torch.multinomial(words[drawn[-1]], 1, generator=generator).squeeze(-1))
    return torch.stack(drawn, 1)


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean cross-entropy in nats a word; products in fp32 whatever the weights are kept in."""
    weights = {name: parameter.float() for name, parameter in model.named_parameters()}
    logits = torch.func.functional_call(model, weights, (), {"input_ids": ids, "use_cache": False}).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def trained(start: nn.Module, words: Tensor, seed: int, rounding: str, rate: float, steps: int = STEPS) -> nn.Module:
    """A copy of the model after so many updates on the chain's text."""
    model = copy.deepcopy(start)
    if rounding != "fp32":
        model.bfloat16()
    parameters = list(model.parameters())
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
    if rounding == "stochastic":
        optimizer = build_optimizer(model, Optimizer(learning_rate=rate, weight_decay=0.0), CPU, seed)
    data = text(words, steps * ROWS, 100 + seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / (0.1 * steps)) * (1 - step / steps)
        loss_of(model, data[step * ROWS : (step + 1) * ROWS]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    return float(loss_of(model, text(chain(2), 256, 9)))


if __name__ == "__main__":
    main()
