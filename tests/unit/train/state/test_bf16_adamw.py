"""AdamW on bf16 weights: what rounding at random keeps, and that it is the same every time."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from remote_payload.settings.training import Optimizer
from remote_payload.train.distributed import unwrapped
from remote_payload.train.loop.step import Stepper
from remote_payload.train.signals import Requests
from remote_payload.train.state import bf16_adamw
from remote_payload.train.state.bf16_adamw import Bf16AdamW, round_stochastically
from remote_payload.train.state.optimizer import build_optimizer, load_named_state, named_state, placed_like
from tests.benchmarks.bench_bf16 import RATE, chain, held_out_loss, new_model
from tests.benchmarks.bench_bf16 import trained as trained_model
from tests.support.models.tiny_models import tiny_model
from tests.support.models.toy_training import ToyTask, toy_run

CPU = torch.device("cpu")


def below(values: Tensor) -> Tensor:
    """The next bf16 number towards zero, or the value itself."""
    return values.view(torch.int32).bitwise_and(-(2**16)).view(torch.float32)


def beyond(values: Tensor) -> Tensor:
    """The next bf16 number away from zero."""
    return (below(values).view(torch.int32) + 2**16).view(torch.float32)


@pytest.mark.parametrize("seed", range(4))
def test_a_value_becomes_one_of_its_neighbours_and_the_mean_is_the_value(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    exact = torch.randn(4000, generator=generator) * 10.0 ** torch.randint(-30, 30, (4000,), generator=generator)
    rounds = torch.stack([round_stochastically(exact, generator).float() for _ in range(100)])
    assert bool(((rounds == below(exact)) | (rounds == beyond(exact))).all())
    unit = (beyond(exact).double() - below(exact).double()).abs()
    error = ((rounds.double().mean(0) - exact.double()) / unit).mean().item()
    assert abs(error) < 5 * (1 / 6) ** 0.5 / (4000 * 100) ** 0.5, "five standard deviations of an unbiased mean"


def test_what_bf16_can_hold_stays_as_it_is_bit_for_bit() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    every = every[every.isfinite()]
    same = round_stochastically(every.float(), torch.Generator().manual_seed(0))
    assert torch.equal(same.view(torch.int16), every.view(torch.int16))


def trained(weights: Tensor, gradients: list[Tensor], **settings: float) -> tuple[Tensor, Tensor]:
    """Weights and second moment after an update with each of the gradients."""
    model = nn.ParameterList([nn.Parameter(weights.clone())])
    optimizer = build_optimizer(model, Optimizer(weight_decay=0.0, **settings), CPU, seed=0)
    for gradient in gradients:
        model[0].grad = gradient.to(weights.dtype)
        optimizer.step()
    return model[0].data, named_state(model, optimizer)["exp_avg_sq/0"]


def test_a_second_moment_shrinks_once_gradients_are_small() -> None:
    gradients = [torch.ones(512)] + [torch.full((512,), 1e-6)] * 2000
    _, exact = trained(torch.zeros(512), gradients)
    _, found = trained(torch.zeros(512, dtype=torch.bfloat16), gradients)
    assert found.dtype == torch.bfloat16 and float(exact[0]) == pytest.approx(1e-3 * 0.999**2000, rel=1e-3)
    assert float(found.float().mean()) == pytest.approx(float(exact[0]), rel=0.03)


def test_updates_that_are_smaller_than_the_weights_own_rounding_are_not_lost() -> None:
    gradients = [torch.ones(512)] * 300
    exact, _ = trained(torch.ones(512), gradients, learning_rate=1e-5)
    found, _ = trained(torch.ones(512, dtype=torch.bfloat16), gradients, learning_rate=1e-5)
    assert 1 - float(exact[0]) == pytest.approx(3e-3, rel=2e-3)
    assert 1 - float(found.float().mean()) == pytest.approx(3e-3, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_each_update_is_torchs_own_but_for_the_rounding(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    choose = random.Random(seed)
    torch.manual_seed(seed)
    monkeypatch.setattr(bf16_adamw, "PIECE", choose.choice([7, 64, 2**22]))
    shapes = [tuple(choose.randint(1, 9) for _ in range(choose.randint(0, 3))) for _ in range(10)]
    dtypes = [choose.choice([torch.float32, torch.bfloat16]) for _ in shapes]
    weights = [torch.randn(shape).to(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    options = {"lr": 10.0 ** -choose.randint(1, 4), "betas": (0.9, choose.choice([0.95, 0.999])), "eps": 1e-8}
    decay = choose.choice([0.0, 0.1])
    ours = [nn.Parameter(weight.clone()) for weight in weights]
    optimizer = Bf16AdamW([{"params": ours[:4], "weight_decay": decay}, {"params": ours[4:]}], seed=seed, **options)
    for _ in range(6):
        plain = [nn.Parameter(p.detach().float()) for p in ours]
        groups = [{"params": plain[:4], "weight_decay": decay}, {"params": plain[4:], "weight_decay": 0.0}]
        expected = torch.optim.AdamW(groups, fused=True, **options)
        for own, other in zip(ours, plain, strict=True):
            own.grad = torch.randn_like(own) if choose.random() < 0.7 else None
            other.grad = None if own.grad is None else own.grad.float()
            if own in optimizer.state:
                expected.state[other] = {key: value.float().clone() for key, value in optimizer.state[own].items()}
        optimizer.step()
        expected.step()
        for own, other in zip(ours, plain, strict=True):
            pairs = [(own.detach(), other.detach())]
            if own.grad is not None:
                pairs += [(optimizer.state[own][key], expected.state[other][key]) for key in ("exp_avg", "exp_avg_sq")]
            for found, exact in pairs:
                found = found.float()
                near = (found == below(exact)) | (found == beyond(exact))
                assert bool((near if own.dtype == torch.bfloat16 else found == exact).all())


def test_equal_seeds_give_equal_weights_and_another_one_others() -> None:
    gradients = [torch.randn(300, generator=torch.Generator().manual_seed(n)) for n in range(5)]

    def weights(seed: int) -> Tensor:
        model = nn.ParameterList([nn.Parameter(torch.ones(300, dtype=torch.bfloat16))])
        optimizer = build_optimizer(model, Optimizer(), CPU, seed)
        for gradient in gradients:
            model[0].grad = gradient.bfloat16()
            optimizer.step()
        return model[0].data

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_a_fine_tune_ends_within_a_hundredth_of_a_nat_of_fp32() -> None:
    start = trained_model(new_model(), chain(1), 0, "fp32", 2e-3, 150).bfloat16().float()
    exact, found = (
        held_out_loss(trained_model(start, chain(2), 1, rounding, RATE, 150)) for rounding in ("fp32", "stochastic")
    )
    assert held_out_loss(start) - exact > 0.3, "nothing was learnt, so the distance says nothing"
    assert abs(found - exact) < 0.01


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: unwrapped(parameter.detach()).clone() for name, parameter in model.named_parameters()}


def rank_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    for sharded in (False, True):
        run = toy_run(Path(folder) / f"sharded_{sharded}")
        model = tiny_model("llama").bfloat16()
        if sharded:
            run.world.shard(model, model.model.layers)
        stepper = Stepper(run, model, ToyTask(run))
        works = list(stepper.task.steps(0, 0))

        def train(stepper: Stepper = stepper, works: list[object] = works) -> list[float]:
            facts = [stepper.step(work, 2, 1e-2, Requests()) for work in works[1:3]]
            return [fact.loss for fact in facts if fact]

        stepper.step(works[0], 2, 1e-2, Requests())
        weights = trained_tensors(model)
        state = {name: unwrapped(tensor).clone() for name, tensor in named_state(model, stepper.optimizer).items()}
        losses, end = train(), trained_tensors(model)
        assert len(losses) == 2
        assert all(
            run.world.gather({n: t.tolist() for n, t in end.items()})[1][n] == t.tolist() for n, t in end.items()
        )
        with torch.no_grad():  # back to where it was, as a resumed run begins
            for name, parameter in model.named_parameters():
                parameter.copy_(placed_like(weights[name], parameter))
        load_named_state(model, stepper.optimizer, state)
        assert train() == losses
        assert all(torch.equal(tensor, end[name]) for name, tensor in trained_tensors(model).items())
    dist.destroy_process_group()


def test_replicas_stay_equal_and_resumed_steps_are_the_same_sharded_or_not(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(rank_of_two, args=(str(tmp_path),), nprocs=2)
