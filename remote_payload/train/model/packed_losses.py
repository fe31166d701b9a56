"""Whether the loss of training is the model's own: two short documents in one row, beside each of them alone.

Training takes two short cuts that are right for most models but not for all. Documents share a row and are kept apart by
their bounds, which only attention reads: a convolution or a state-space layer carries its state on into the next document.
And the loss is computed from the decoder's output and the head's weight, chunk by chunk, without what a model may do to its
logits after the head (a soft cap, a scale). And attention is ours (``model/attention.py``), without what a model may add to
it (sinks, a soft cap). No list of names knows all models, so the difference is measured: transformers' eager attention and
the model's own logits are the definition.

Logits of a model with random weights are nearly equal for all words: whatever the model sees, its loss is about ln V. So for
the measurement the decoder's output is multiplied until the logits spread as widely as those of a trained model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from remote_payload.train.data.packing import IGNORED, Document, counted_positions, pack
from remote_payload.train.model.causal import CausalLoss, base_of
from remote_payload.train.model.precision import autocast

SPREAD = 8.0  # nats: the least standard deviation of the logits over the vocabulary while it is measured
# The coarsest rounding that torch.set_float32_matmul_precision allows: fp32, TF32 or bf16 products.
FP32_PRODUCTS = {"highest": 2.0**-23, "high": 2.0**-10, "medium": 2.0**-7}


class Deviations(NamedTuple):
    """Root mean squares over the tokens of the deviations of their log-probabilities, in nats, and what rounding explains.

    ``leak``: of each packed document when the other one has other words. ``head``: of each document alone, by the loss of
    training, from the model's logits. ``packed``: of the packed documents from the logits of each alone with eager attention.
    """

    leak: float
    leak_explained: float
    head: float
    packed: float
    explained: float


@torch.no_grad()
def deviations(
    model: CausalLoss, first: list[int], second: list[int], packed: bool, compute: torch.dtype
) -> Deviations:
    """Measured on two documents of at least two tokens, the model in eval mode and its products in ``compute``.

    With ``packed`` they share a row with their bounds, otherwise each is a row of the batch (both of one length), where
    nothing can leak. About fifteen forward passes of both documents; the device is waited for once.
    """
    measure = _Measure(model, compute)
    with measure.amplified(second) as spread:
        with _eager_attention(model):
            alone = torch.cat([measure.own(first), measure.own(second)])
        head = torch.cat([measure.training([each], packed=False) - measure.own(each) for each in (first, second)])
        both = measure.training([first, second], packed)
        loss = measure.mean_loss([first, second], packed)
        unit = measure.rounding * spread  # of one layer, seen in the logits
        explained = 4 * unit * math.sqrt(2 * measure.layers) * (1 + 2 / math.sqrt(len(alone)))
        leak, leak_explained = measure.leak(first, second, both) if packed else (spread * 0, spread * 0)
        deviation = torch.maximum(_rms(both - alone), (loss + alone.mean()).abs())
        found = [leak, unit / 8 + 8 * leak_explained, _rms(head), deviation, explained]
        return Deviations(*torch.stack(found).tolist())


class _Measure:
    """Log-probabilities of the tokens of documents (all but each one's first), in order, by both ways."""

    def __init__(self, model: CausalLoss, compute: torch.dtype) -> None:
        self.model = model
        self.device = model.head.device
        self.autocast = autocast(self.device, compute)
        self.vocabulary, width = model.head.shape
        base = base_of(model.network)
        self.layers = int(getattr(base.config.get_text_config(), "num_hidden_layers", 32))
        # A layer rounds to its dtype; an fp32 sum over its width rounds about sqrt(width) times.
        dtypes = {compute, model.head.dtype}
        fp32 = max(math.sqrt(width) * 2.0**-23, FP32_PRODUCTS[torch.get_float32_matmul_precision()])
        self.rounding = max(fp32, *(torch.finfo(dtype).eps for dtype in dtypes))

    def logits(self, ids: list[int]) -> Tensor:
        with self.autocast:
            return self.model.own_logits(torch.tensor([ids], device=self.device))[0].float()

    def own(self, ids: list[int]) -> Tensor:
        """By the model's own logits, for a document alone."""
        return -cross_entropy(self.logits(ids)[:-1], torch.tensor(ids[1:], device=self.device), reduction="none")

    def training(self, documents: list[list[int]], packed: bool) -> Tensor:
        """By the way of training."""
        with self.autocast:
            scores: Tensor = self.model(**self.batch(documents, packed), each_token=True).log_probability
        return scores

    def mean_loss(self, documents: list[list[int]], packed: bool) -> Tensor:
        """The loss of training itself, in nats a token."""
        with self.autocast:
            loss = self.model(**self.batch(documents, packed))
        return loss.sum / loss.count

    def leak(self, first: list[int], second: list[int], both: Tensor) -> tuple[Tensor, Tensor]:
        """How much the packed documents' log-probabilities ``both`` change with the other's words, and how much of it is rounding.

        The shapes stay the same, so for most models nothing at all changes. Where words choose the experts that compute
        them, rounding does: as much as the beginning of one document changes with its end, by the model's own logits.
        """
        ours = len(first) - 1
        before, after = (
            self.training([self.others(first), second], True),
            self.training([first, self.others(second)], True),
        )
        with _eager_attention(self.model):
            whole, changed = (self.own(first + rest)[:ours] for rest in (second, self.others(second)))
        return _rms(both - torch.cat([after[:ours], before[ours:]])), _rms(whole - changed)

    def others(self, ids: list[int]) -> list[int]:
        """As many tokens, each another one."""
        return [(token + 1) % self.vocabulary for token in ids]

    def batch(self, documents: list[list[int]], packed: bool) -> dict[str, Any]:
        if packed:
            row = pack([Document(ids, [True] * len(ids)) for ids in documents])
        else:
            ids = torch.tensor(documents)
            targets = torch.full_like(ids, IGNORED)
            targets[:, :-1] = ids[:, 1:]
            row = {"input_ids": ids, "targets": targets, "counted": counted_positions(targets)}
        return {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in row.items()}

    @contextmanager
    def amplified(self, ids: list[int]) -> Iterator[Tensor]:
        """The decoder's output multiplied, by both ways alike, so that the logits of ``ids`` spread by SPREAD at least.

        Gives the spread then: a scalar on the device.
        """
        spread = self.logits(ids).std(dim=-1).mean()
        factor = (SPREAD / spread).clamp(min=1.0)

        def multiply(module: Any, arguments: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state * factor.to(output.last_hidden_state.dtype)
            return output

        hook = base_of(self.model.network).get_decoder().register_forward_hook(multiply)
        try:
            yield spread * factor
        finally:
            hook.remove()


@contextmanager
def _eager_attention(model: CausalLoss) -> Iterator[None]:
    """transformers' own attention inside, written out as matrix products."""
    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    before = [(module.config, module.config._attn_implementation) for module in models]
    for config, _ in before:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


def _rms(deviation: Tensor) -> Tensor:
    return deviation.square().mean().sqrt()
