"""A causal language model whose forward pass is its loss.

The cross-entropy over a large vocabulary is computed in chunks: the logits of all tokens never exist at once, forward or
backward. A batch of 8 × 1024 tokens over 151,936 words is 4.6 GiB of fp32 logits, and as much again for their gradient. Here
a chunk of rows is turned into logits, a loss and (in training) its gradient, and forgotten. The gradient is computed in the
forward pass, so nothing is computed twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from remote_payload.train.data.packing import counted_positions
from remote_payload.train.errors import InputError
from remote_payload.train.model.attention import ATTENTION, nothing_masked, sees_all_before

Network: TypeAlias = PreTrainedModel | PeftModel

# What some configs do to logits after the head, with the value that changes nothing; the chunked loss does none of it.
AFTER_HEAD = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0, "lm_head_multiplier": 1.0}


class CausalLoss(nn.Module):
    """A language model whose forward pass is its loss, so that sharding, hooks and compilation see one module.

    Raises InputError for an architecture whose output is more than a matrix product with the head's weight.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        base = base_of(network)
        head = plain_head(network)
        altered = [name for name, plain in AFTER_HEAD.items() if getattr(base.config, name, None) not in (None, plain)]
        if altered or not hasattr(head, "weight") or getattr(head, "bias", None) is not None:
            reason = altered[0] if altered else "the form of its output head"
            raise InputError(f"settings.model: {base.config.model_type} models are not supported yet ({reason})")

    def forward(
        self,
        input_ids: Tensor,
        targets: Tensor,
        counted: Tensor | None = None,
        *,
        each_token: bool = False,
        **inputs: Any,
    ) -> TokenLoss | TokenScores:
        """The loss of predicting ``targets`` (already shifted); ``inputs`` go to the decoder (packing bounds, a mask).

        ``counted`` is ``counted_positions(targets)``; without it, the host waits for the device to find them. ``each_token`` gives
        every counted token's score instead, without gradients.
        """
        measure = chunked_scores if each_token else chunked_cross_entropy
        found: TokenLoss | TokenScores = measure(self.hidden(input_ids, **inputs), self.head, targets, counted=counted)
        return found

    def logits(self, input_ids: Tensor, targets: Tensor, counted: Tensor | None = None, **inputs: Any) -> Tensor:
        """``[counted, vocabulary]``: what the model says where a target counts; for losses that need all of it at once."""
        hidden, _ = _counted(self.hidden(input_ids, **inputs), targets, counted)
        return torch.nn.functional.linear(hidden, self.head)

    def hidden(self, input_ids: Tensor, **inputs: Any) -> Tensor:
        """``[rows, length, width]``: what goes into the head."""
        base = base_of(self.network)
        ours = (
            base.config._attn_implementation == ATTENTION and base._supports_attention_backend
        )  # Mamba's mask is another thing
        if ours and ("cu_seq_lens_q" in inputs or sees_all_before(base.config)):
            inputs.setdefault("attention_mask", nothing_masked(input_ids))
        return base.get_decoder()(input_ids=input_ids, use_cache=False, **inputs).last_hidden_state

    def own_logits(self, input_ids: Tensor) -> Tensor:
        """``[rows, length, vocabulary]``: what the model itself makes of unpacked rows, to compare the loss with."""
        logits: Tensor = self.network(input_ids=input_ids, use_cache=False).logits
        return logits

    @property
    def head(self) -> Tensor:
        """``[vocabulary, width]``."""
        return base_of(self.network).get_output_embeddings().weight


def base_of(network: Network) -> PreTrainedModel:
    """The transformers model inside a peft model; a plain one is itself."""
    return network.get_base_model() if isinstance(network, PeftModel) else network


def plain_head(network: Network) -> nn.Module:
    """The output head. Raises InputError for one with an adapter: its weight alone is not what it computes."""
    head: nn.Module = base_of(network).get_output_embeddings()
    if isinstance(head, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
        raise InputError("settings.adapter: an adapter on the output head (lm_head) is not supported yet")
    return head


# fp32 logits of one chunk; large enough on a GPU that the matrix product stays efficient.
CHUNK_BYTES = {"cuda": 256 << 20}
CHUNK_BYTES_ELSEWHERE = 32 << 20


class TokenLoss(NamedTuple):
    """Of the tokens that count: the summed loss in nats (fp32, differentiable), their number, and how many were predicted."""

    sum: Tensor
    count: Tensor
    correct: Tensor


@torch.compiler.disable  # a loop with in-place steps: nothing to fuse, and its buffer would be copied
def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_rows: int | None = None, counted: Tensor | None = None
) -> TokenLoss:
    """Cross-entropy of ``hidden @ weight.T`` against ``targets``, equal to torch's with ``reduction="sum"``.

    ``hidden`` is ``[..., width]``, ``weight`` ``[vocabulary, width]`` (an output head without bias), ``targets``
    ``[...]``: the word that each position should predict, already shifted, or ``IGNORED`` (data/packing.py). The product is computed
    in the autocast dtype where autocast is on, the softmax and the loss in fp32. ``counted`` is ``counted_positions(targets)``.
    """
    hidden, targets = _counted(hidden, targets, counted)
    rows = chunk_rows or rows_per_chunk(weight)
    loss, correct = _ChunkedCrossEntropy.apply(hidden, weight, targets, rows)
    return TokenLoss(loss, torch.full((), len(targets), device=hidden.device), correct)


def chunked_log_probabilities(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_rows: int | None = None, counted: Tensor | None = None
) -> Tensor:
    """``[tokens]``: each counted target's log-probability in fp32, in order; for losses that weigh tokens (DPO).

    Differentiable; a chunk's logits are computed again in the backward pass instead of being kept.
    """
    hidden, targets = _counted(hidden, targets, counted)
    rows = chunk_rows or rows_per_chunk(weight)
    parts = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([checkpoint(_log_probabilities, h, weight, t, use_reentrant=False) for h, t in parts])


class TokenScores(NamedTuple):
    """Of each token that counts, in order: its log-probability (fp32), and whether it was the most probable."""

    log_probability: Tensor
    correct: Tensor


@torch.no_grad()
def chunked_scores(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_rows: int | None = None, counted: Tensor | None = None
) -> TokenScores:
    """The terms that ``chunked_cross_entropy`` adds up, token by token, for measuring examples one by one."""
    hidden, targets = _counted(hidden, targets, counted)
    rows, dtype = chunk_rows or rows_per_chunk(weight), _product_dtype(hidden)
    head, log_probabilities, correct = weight.to(dtype), [], []
    for part, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        logits = (part.to(dtype) @ head.T).float()
        log_probabilities.append(-torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
        correct.append(logits.argmax(-1) == wanted)
    return TokenScores(torch.cat(log_probabilities), torch.cat(correct))


def rows_per_chunk(weight: Tensor) -> int:
    """How many tokens' fp32 logits fit the chunk's budget of memory."""
    budget = CHUNK_BYTES.get(weight.device.type, CHUNK_BYTES_ELSEWHERE)
    return max(16, budget // (4 * int(weight.shape[0])))


def _counted(hidden: Tensor, targets: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows whose target counts; the others cost no head at all (in chat data they are most)."""
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    rows = counted_positions(targets) if rows is None else rows
    return (hidden, targets) if len(rows) == len(targets) else (hidden[rows], targets[rows])


def _log_probabilities(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    dtype = _product_dtype(hidden)
    logits = torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype)).float()
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _product_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        dtype = _product_dtype(hidden)
        head = weight.to(dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        # fp32 whatever the weight is: in bf16 a hundred chunks would add up with two digits of precision.
        weight_grad = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if wants_weight else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(targets), rows):
                part, wanted = hidden[start : start + rows].to(dtype), targets[start : start + rows]
                logits = (part @ head.T).float()
                correct += (logits.argmax(-1) == wanted).sum()
                loss += _cross_entropy_in_place(logits, wanted)
                gradient = logits.to(dtype)  # softmax minus one-hot, left there by the line above
                if hidden_grad is not None:
                    hidden_grad[start : start + rows] = gradient @ head
                if weight_grad is not None:
                    weight_grad += gradient.T @ part
                del logits, gradient  # before the next chunk's are made
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, loss_grad: Tensor, _: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        # In place: a second fp32 [vocabulary, width] would be 1.5 GiB for a 7B model. Autograd refuses a second backward pass.
        hidden_grad = None if hidden_grad is None else hidden_grad.mul_(loss_grad.to(hidden_grad.dtype))
        weight_grad = None if weight_grad is None else weight_grad.mul_(loss_grad).to(ctx.weight_dtype)
        return hidden_grad, weight_grad, None, None


def _cross_entropy_in_place(logits: Tensor, targets: Tensor) -> Tensor:
    """The summed loss of fp32 ``logits``, which are overwritten with their gradient: one buffer, no copies."""
    logits -= logits.amax(dim=-1, keepdim=True)
    wanted = targets.unsqueeze(-1)
    chosen = logits.gather(-1, wanted)
    total = logits.exp_().sum(dim=-1, keepdim=True)
    logits /= total
    logits.scatter_add_(-1, wanted, logits.new_full((1, 1), -1.0).expand(len(targets), 1))
    return (total.log() - chosen).sum()
