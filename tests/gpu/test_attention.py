"""Which attention a packed row takes: torch's kernel as far as its signature reaches, else one call a document, with a line in the log."""

from __future__ import annotations

import inspect

import pytest
import torch

from remote_payload.train.model import attention
from tests.gpu import jobs
from tests.gpu.runs import run_job


def kernel_knows(parameter: str) -> bool:
    """Whether this torch's kernel can be given it; torch 2.10 has no window."""
    return attention.varlen_attn is not None and parameter in inspect.signature(attention.varlen_attn).parameters


WAYS = [
    pytest.param("Qwen 2.5 0.5B", True, id="grouped-heads"),
    pytest.param("window of 256", kernel_knows("window_size"), id="sliding-window"),
    pytest.param("heads of 320", False, id="heads-over-256"),
    pytest.param("dropout in attention", False, id="dropout"),
]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """Each line of the log is said once a process."""
    monkeypatch.setattr(attention, "_printed", set())


@pytest.mark.parametrize(("model", "kernel"), WAYS)
def test_the_kernel_that_each_shape_takes(device, tmp_path, monkeypatch, model, kernel):
    in_training: list[bool] = []
    attend = attention._attend_with_kernel

    def noted(*arguments):
        in_training.append(torch.is_grad_enabled())  # an evaluation has no dropout
        return attend(*arguments)

    monkeypatch.setattr(attention, "_attend_with_kernel", noted)
    done = run_job(device, "sft", jobs.brie(tmp_path, model, 1, length=512), tmp_path, steps_only=True)
    assert any(in_training) == (attention.varlen_attn is not None and kernel), done.run.log
    assert done.seen.steps[-1].total <= 1, done.seen.steps[-1].waits


LACKING = [
    pytest.param(
        lambda q, k, v, a, b, m, n, *, is_causal=False: q, "a flash kernel; key and value heads are repeated", id="2.10"
    ),
    pytest.param(
        lambda q, k, v, a, b, m, n, *, scale=None, window_size=(-1, -1): q,
        "a flash kernel; key and value heads are repeated",
        id="2.11",
    ),
    pytest.param(None, None, id="2.9"),
]


@pytest.mark.parametrize(("kernel", "said"), LACKING)
def test_a_torch_whose_kernel_has_fewer_parameters(device, tmp_path, monkeypatch, kernel, said):
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    done = run_job(device, "sft", jobs.brie(tmp_path, "Qwen 2.5 0.5B", 1, length=256), tmp_path, steps_only=True)
    assert len(done.seen.steps) == 2
    assert said is None or said in done.run.log, done.run.log


def test_a_kernel_that_takes_no_window_gives_way_with_a_line_in_the_log(device, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", lambda q, k, v, a, b, m, n, *, is_causal=False: q)
    done = run_job(device, "sft", jobs.brie(tmp_path, "window of 256", 1, length=512), tmp_path, steps_only=True)
    assert "takes no window_size" in done.run.log
