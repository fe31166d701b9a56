"""What only a GPU that computes can show: the numbers of its kernels, and that a model learns."""

from __future__ import annotations

import pytest
import torch

from remote_payload.train.model import attention, causal
from tests.gpu import jobs
from tests.gpu.runs import run_job

pytestmark = pytest.mark.real_arithmetic


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize(("heads", "groups"), [(8, 8), (8, 2)])
def test_packed_attention_is_that_of_each_document_alone(heads, groups, window):
    torch.manual_seed(0)
    lengths, width = [100, 1, 257, 64], 64
    total = sum(lengths)
    shapes = ((1, heads, total, width), (1, groups, total, width), (1, groups, total, width))
    query, key, value = (
        torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes
    )
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).cuda()
    module = torch.nn.Module()
    module.is_causal, module.num_key_value_groups = True, heads // groups
    packed, _ = attention.packed_attention(
        module, query, key, value, None, sliding_window=window, cu_seq_lens_q=bounds, max_length_q=max(lengths)
    )
    exact = exact_attention(query, key, value, lengths, window)
    torch.testing.assert_close(packed.float(), exact, atol=2e-2, rtol=2e-2)


def exact_attention(query, key, value, lengths: list[int], window: int | None):
    """``[1, T, heads, width]`` in fp32 with a mask: causal, and inside each document."""
    owner = torch.arange(len(lengths), device="cuda").repeat_interleave(torch.tensor(lengths, device="cuda"))
    place = torch.arange(len(owner), device="cuda")
    far = place[:, None] - place[None, :]
    mask = (owner[:, None] == owner[None, :]) & (far >= 0) & (far < (window or len(owner)))
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    found = torch.nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)
    return found.transpose(1, 2)


def test_the_chunked_loss_is_torchs(tmp_path):
    torch.manual_seed(0)
    hidden = torch.randn(700, 256, device="cuda", requires_grad=True)
    weight = torch.randn(50_000, 256, device="cuda", requires_grad=True)
    targets = torch.randint(0, 50_000, (700,), device="cuda")
    ours, *_ = causal.chunked_cross_entropy(hidden, weight, targets)
    grads = torch.autograd.grad(ours, (hidden, weight))
    theirs = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)
    for mine, other in zip(grads, torch.autograd.grad(theirs, (hidden, weight)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-2)


def test_a_model_learns_and_says_how_well_it_used_the_gpu(device, tmp_path):
    settings = {**jobs.london(tmp_path, "london_slm", 8), "max_steps": 40}
    settings["optimizer"] = {"learning_rate": 1e-3}
    settings["schedule"] = {"name": "constant", "warmup": 4}
    done = run_job(device, "pretrain", settings, tmp_path)
    losses = done.run.losses
    assert losses[-1] < losses[0] - 1.0, losses
    mfu = done.run.of_type("step")[-1]["mfu"]
    assert mfu is None or 0 < mfu < 1, "None: a GPU whose peak is not in the table"
