"""A small model learns what a large one would say: its loss is the distance from the teacher's probabilities (distillation)."""

from dataclasses import dataclass

import torch.nn.functional as F

from remote_payload.recipes import sft
from remote_payload.settings.setting import setting
from remote_payload.settings.sft import METRICS, SftSettings  # noqa: F401
from remote_payload.train.download import local_model
from remote_payload.train.model.causal import CausalLoss, TokenLoss
from remote_payload.train.model.causal_files import load_network
from remote_payload.train.model.precision import resolve_precision


@dataclass
class Settings(SftSettings):
    """What sft can be told, and who the teacher is. Both models must have the same vocabulary."""

    teacher: str = setting("Qwen/Qwen2.5-1.5B-Instruct", "The model to learn from.", kind="model")
    temperature: float = setting(2.0, "Softens both distributions.", gt=0)


def main(run):
    t, device = run.settings.temperature, run.world.device
    path = local_model(run, run.settings.teacher, None).path
    teacher = CausalLoss(load_network(path, device=device, dtype=resolve_precision(run.settings.precision, device)))
    teacher.eval().requires_grad_(False)

    def loss(model, batch):
        says, should_say = (each.logits(**batch.tensors) / t for each in (model, teacher))  # [answers' tokens, words]
        targets = batch.tensors["targets"].flatten()[batch.tensors["counted"]]
        distance = F.kl_div(says.log_softmax(-1), should_say.log_softmax(-1), reduction="sum", log_target=True)
        count = targets.new_full((), len(targets))
        return TokenLoss(distance.float() * t * t, count, (says.argmax(-1) == targets).sum())

    sft.learn(run, loss)
