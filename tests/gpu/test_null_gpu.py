"""The null GPU itself: what it counts, what it knows, and that it computes nothing."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.waits import CountingMode, Waits

pytestmark = pytest.mark.null_only


@pytest.fixture
def mode(device):
    with device.running():
        yield device.mode


def test_memory_is_counted_as_the_allocator_hands_it_out(mode):
    first = torch.empty(1000, device="cuda")
    assert mode.memory.live == 4096
    second = first.view(10, 100) + 1
    assert mode.memory.live == 8192
    del first, second
    assert (mode.memory.live, mode.memory.peak) == (0, 8192)


def test_what_does_not_fit_is_out_of_memory(mode):
    held = torch.empty(60 << 30, dtype=torch.uint8, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(30 << 30, dtype=torch.uint8, device="cuda")
    del held
    torch.empty(70 << 30, dtype=torch.uint8, device="cuda")


def test_a_backward_pass_gives_gradients_without_values(mode):
    layer = torch.nn.Linear(1000, 1000, device="cuda")
    layer(torch.empty(8, 1000, device="cuda")).sum().backward()
    assert layer.weight.grad.shape == (1000, 1000) and layer.weight.grad.device.type == "cuda"


READS = [
    pytest.param(lambda x: x.sum().item(), id="item"),
    pytest.param(lambda x: x.tolist(), id="tolist"),
    pytest.param(lambda x: x.cpu(), id="cpu"),
    pytest.param(lambda x: (x > 0).nonzero(), id="nonzero"),
    pytest.param(lambda x: x[x > 0], id="mask"),
    pytest.param(lambda x: x.bincount(), id="bincount"),
    pytest.param(lambda x: bool((x > 0).all()), id="bool"),
    pytest.param(lambda x: torch.tensor([1, 2], device="cuda"), id="tensor"),
    pytest.param(lambda x: x.repeat_interleave(x), id="repeat"),
]


@pytest.mark.parametrize("read", READS)
def test_each_way_to_read_the_device_is_one_wait(mode, read):
    numbers = torch.arange(4, device="cuda")
    before = mode.waits.total
    read(numbers)
    assert mode.waits.total == before + 1, mode.waits.waits


def test_pinned_copies_in_the_background_are_no_wait_and_others_are_told_apart(mode):
    pinned, pageable = torch.arange(8).pin_memory(), torch.arange(8)
    pinned.to("cuda", non_blocking=True)
    pageable.to("cuda", non_blocking=True)
    assert (mode.waits.total, sum(mode.waits.pinned.values()), sum(mode.waits.pageable.values())) == (0, 1, 1)
    torch.empty(8, pin_memory=True).copy_(torch.empty(8, device="cuda"), non_blocking=True)
    assert mode.waits.total == 0
    torch.empty(8).copy_(torch.empty(8, device="cuda"), non_blocking=True)
    assert mode.waits.total == 1


def test_counts_that_come_from_the_host_are_exact_and_the_rest_is_one(mode):
    targets = torch.tensor([[1, -100, 3, -100, 5]]).to("cuda")
    assert (targets != -100).sum().item() == 3
    assert (targets != -100).nonzero().shape == (3, 2)
    loss = torch.empty(1000, 1000, device="cuda").sum()
    sums = torch.zeros(2, device="cuda")
    sums += torch.stack([loss, torch.tensor(7.0, device="cuda")])
    assert sums.tolist() == [1.0, 7.0]


def test_a_model_moves_to_the_device_and_back_and_stays_the_same_parameters(mode):
    with mode.weights():
        layer = torch.nn.Linear(1000, 1000, bias=False)
    weight = layer.weight
    layer.to("cuda")
    assert layer.weight is weight and weight.device.type == "cuda" and mode.memory.live == 4_000_256
    layer.to("cpu")
    assert mode.memory.live == 0


def test_files_of_weights_have_the_real_size_and_take_no_disk(mode, tmp_path):
    from tests.gpu.null.weight_files import load_file, save_file

    state = {"weights": mode.fake((30000, 30000), torch.float32), "generator": torch.arange(100, dtype=torch.uint8)}
    save_file(state, tmp_path / "a.safetensors")
    status = (tmp_path / "a.safetensors").stat()
    assert status.st_size > 3.6e9 and status.st_blocks * 512 < 1 << 20
    back = load_file(tmp_path / "a.safetensors")
    assert back["weights"].shape == (30000, 30000) and back["generator"].tolist() == list(range(100))


def test_the_same_rules_count_on_real_tensors():
    waits = Waits()
    with CountingMode(waits):
        torch.arange(4).sum().item()
    assert waits.total == 0, "tensors of the host wait for nothing"
