"""AdamW with the usual two groups, and its state by the names of the parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from remote_payload.settings.training import Optimizer
from remote_payload.train.state.bf16_adamw import Bf16AdamW


def build_optimizer(model: nn.Module, settings: Optimizer, device: torch.device, seed: int) -> torch.optim.Optimizer:
    """AdamW (https://arxiv.org/abs/1711.05101) over what is trainable, fused on CPU and CUDA.

    Matrices are decayed; vectors (biases, norms) are not. Weights in bf16 are rounded with noise that follows from ``seed``.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (settings.beta1, settings.beta2)
    if any(parameter.dtype == torch.bfloat16 for parameter in trainable):
        return Bf16AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.epsilon, seed=seed)
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.epsilon, fused=fused)


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by name, ``exp_avg/<parameter>`` and so on; empty before the first step."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {f"{key}/{names[p]}": value for p, values in optimizer.state.items() for key, value in values.items()}


def load_named_state(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restores what ``named_state`` gave, sharded over the ranks where the parameter is. Raises KeyError for an unknown parameter."""
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, tensor in tensors.items():
        key, _, owner = name.partition("/")
        parameter = parameters[owner]
        if key == "step":  # one number a parameter, never sharded; the fused kernel needs it on the device
            optimizer.state[parameter][key] = tensor.to(parameter.device if optimizer.defaults.get("fused") else "cpu")
        else:
            optimizer.state[parameter][key] = placed_like(tensor, parameter)


def placed_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The tensor on the parameter's device, sharded over the ranks like it where it is a DTensor; its own dtype is kept."""
    if hasattr(parameter, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor.to(parameter.device)
