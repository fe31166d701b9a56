"""AdamW for weights that are kept in bf16: computed in fp32, stored with stochastic rounding.

bf16 has 8 significant bits: numbers next to each other differ by 0.4 to 0.8 %. A second moment that should lose 0.1 % in a step
(``beta2`` 0.999) is rounded back to where it was, so it never shrinks, and a weight's update below half of that distance is
lost. Rounding at random, up with the probability that makes the result right on average, keeps both (Gupta et al. 2015, "Deep
Learning with Limited Numerical Precision"; for weights in bf16 Zamirai et al. 2020, "Revisiting BFloat16 Training"). It takes
no memory, where fp32 moments take 4 more bytes a parameter and Kahan's summation 2: OLMo 2 7B would not fit 80 GB with either.

Measured (tests/benchmarks/bench_bf16.py: a fine-tune of 400 steps, mean of three seeds) as the loss beside fp32, in nats: all
rounded to nearest +0.195; at random the second moment alone +0.194, the weights alone +0.0008, both +0.0002, all three +0.0001.
The price: an update moves about 120 bytes a parameter instead of the fused kernel's 14. On one CPU core it takes eleven times
as long; on a GPU it has not been timed.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

# Elements that are in fp32 at once, in five buffers of 32 MiB; for smaller pieces launching the kernels would take longest.
PIECE = 2**23

Flat = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # of equal elements, one dimension: weights, gradient, first and second moment


class Bf16AdamW(torch.optim.Optimizer):
    """AdamW whose bf16 weights and moments are stored with stochastic rounding; fp32 ones as ``torch.optim.AdamW`` does.

    The noise is a function of ``seed``, the step and the shard (one of a weight sharded over ranks), so equal runs are equal, a
    resumed one continues as if it had never stopped, and replicas on several ranks stay equal. State: ``step`` (on the CPU),
    ``exp_avg`` and ``exp_avg_sq`` in the weight's dtype, sharded as it is.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float, seed: int
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Updates every weight that has a gradient. There is no ``closure``."""
        trained = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        for _, parameters in trained:
            for parameter in parameters:
                self._count(parameter)
        number = max((int(values["step"]) for values in self.state.values()), default=0)
        noise = Noise(self.seed, number)
        for group, parameters in trained:
            ages: dict[int, list[Tensor]] = defaultdict(list)  # one that had no gradient in some step is younger
            for parameter in parameters:
                ages[int(self.state[parameter]["step"])].append(parameter)
            for age, same in ages.items():
                self._update(group, age, same, noise)

    def _count(self, parameter: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1

    def _update(self, group: dict[str, Any], age: int, parameters: list[Tensor], noise: Noise) -> None:
        rounded: list[Flat] = []
        for parameter in parameters:
            state = self.state[parameter]
            own = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
            weight, gradient, first, second = (_flat(tensor) for tensor in own)
            if weight.dtype == torch.float32:
                _adamw(group, age, (weight, gradient, first, second))
            elif weight.numel():  # a small weight has no part on some ranks
                rounded.append((weight, gradient, first, second))
        for batch in batches(rounded):
            sizes = [len(piece[0]) for piece in batch]
            weight, gradient, first, second = (
                torch.cat(parts).float() if len(batch) > 1 else parts[0].float() for parts in zip(*batch, strict=True)
            )
            _adamw(group, age, (weight, gradient, first, second))
            for index, exact in ((0, weight), (2, first), (3, second)):
                parts = round_stochastically(exact, noise.of(parameters[0])).split(sizes)
                torch._foreach_copy_([piece[index] for piece in batch], list(parts))


class Noise:
    """The random numbers of one step."""

    def __init__(self, seed: int, step: int) -> None:
        self.seed, self.step = seed, step
        self.generators: dict[torch.device, torch.Generator] = {}

    def of(self, parameter: Tensor) -> torch.Generator:
        """Those for a parameter's device and, where it is sharded, for this rank's part."""
        if parameter.device not in self.generators:
            shard = parameter.device_mesh.get_local_rank() if hasattr(parameter, "device_mesh") else 0
            seed = random.Random(f"{self.seed}/{self.step}/{shard}").getrandbits(63)
            self.generators[parameter.device] = torch.Generator(parameter.device).manual_seed(seed)
        return self.generators[parameter.device]


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 ``[n]`` in bf16: one of the two neighbours, each with the probability that makes the mean exact; bf16 values stay.

    bf16 is the upper half of fp32. A random number below one unit of it is added to the bits, and the lower half is left out
    (the second of each pair of 16-bit numbers is the upper one: x86, ARM and GPUs are little-endian).
    """
    bits = torch.empty_like(values, dtype=torch.int32).random_(0, 2**16, generator=generator)
    bits += values.view(torch.int32)
    return bits.view(torch.int16)[1::2].view(torch.bfloat16)


def batches(tensors: list[Flat]) -> Iterator[list[Flat]]:
    """The tensors in pieces, as many together as make ``PIECE`` elements: small ones share the launch of a kernel."""
    batch: list[Flat] = []
    held = 0
    for flat in tensors:
        for weight, gradient, first, second in zip(*(tensor.split(PIECE) for tensor in flat), strict=True):
            if batch and held + len(weight) > PIECE:
                yield batch
                batch, held = [], 0
            batch.append((weight, gradient, first, second))
            held += len(weight)
    if batch:
        yield batch


def _flat(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor in one dimension, sharing its memory."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.view(-1)


def _adamw(group: dict[str, Any], age: int, flat: Flat) -> None:
    """torch's AdamW in place, for tensors whose update number ``age`` it is; fused on CPU and CUDA."""
    weight, gradient, first, second = flat
    fused = weight.device.type in ("cpu", "cuda")
    count = torch.full(
        (), age - 1.0, device=weight.device if fused else "cpu"
    )  # a fill: nothing is copied to the device
    beta1, beta2 = group["betas"]
    adamw(
        [weight], [gradient], [first], [second], [], [count], fused=fused, foreach=False, amsgrad=False, maximize=False,
        beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
    )  # fmt: skip
