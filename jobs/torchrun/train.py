"""Data-parallel regression: each rank sees its own half of the data, and all agree on the weights."""

import os
import pathlib

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = 200


def main() -> None:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 4, generator=generator)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
    mine = slice(rank, None, world)
    x, y = inputs[mine].to(device), targets[mine].to(device)
    model = DistributedDataParallel(torch.nn.Linear(4, 1).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, STEPS + 1):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0 and step % 50 == 0:
            print(f"step {step}/{STEPS}  loss {loss.item():.6f}  ranks {world}", flush=True)
    if rank == 0:
        pathlib.Path("models").mkdir(exist_ok=True)
        torch.save(model.module.state_dict(), "models/linear.pt")
    dist.destroy_process_group()


main()
