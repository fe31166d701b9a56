"""DPO as TRL's own ``DPOTrainer`` does it: what ours is held to.

TRL is not among this project's packages. Its trajectory is kept in ``trl_dpo.json``, with the versions that gave it. To make it again:

    pip install trl==1.16.0                      # in an environment that has this project's packages
    python -m tests.support.models.trl_dpo
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, AutoTokenizer

from remote_payload.train.data.batching import epoch_order
from tests.support.models.tiny_models import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

RECORD = Path(__file__).with_suffix(".json")
VERSIONS = ("trl", "transformers", "peft", "torch", "accelerate")
BETA, RATE, DECAY, CLIP, SIZE, EPOCHS, LONGEST = 0.3, 0.01, 0.1, 0.5, 3, 6, 96

# Seven, so that the last step of an epoch has one; answers of different lengths, which a mean over tokens would weigh otherwise.
PAIRS = [
    {"prompt": "When did the ship leave London?\n", "chosen": "In the spring of 1823.", "rejected": "No idea."},
    {"prompt": "Who was the mayor in 1901?\n", "chosen": "Brown.", "rejected": "The mayor of the town was called Ada."},
    {"prompt": "May I copy it?\n", "chosen": "The licensor grants you a licence to copy.", "rejected": "Yes, no, yes."},
    {"prompt": "And sell it?\n", "chosen": "Yes.", "rejected": "Nobody on the quay believed that it would return."},
    {
        "prompt": "How do I start?\n",
        "chosen": "Install the package, import it.",
        "rejected": "Call the mayor of London.",
    },
    {"prompt": "What is Ada's field?\n", "chosen": "Mathematics, since 1833.", "rejected": "null"},
    {"prompt": "What does read do?\n", "chosen": "It gives the lines of a file.", "rejected": "It prints figures."},
]


@dataclass(frozen=True)
class Case:
    """A model, and how its prompts are written: as conversations by a chat template, or as they are (None)."""

    family: str
    template: str | None

    def pairs(self) -> list[dict[str, Any]]:
        """PAIRS as both TRL and the recipe read them."""
        return PAIRS if self.template is None else [_conversation(pair) for pair in PAIRS]


CASES = {
    "text": Case("llama", None),
    "conversations": Case("qwen2", CHAT_TEMPLATE.replace("<|im_end|>\n", "<|im_end|>")),
    "a line break after the end token": Case("qwen2", CHAT_TEMPLATE),  # as Qwen's own template has it
}


@dataclass(frozen=True)
class Trajectory:
    """``tokens`` are ``[prompt, chosen, rejected]`` of each pair; losses and gradient norms are those of each step, rewards the means over
    each epoch. ``moved`` is what became of each of the adapter's matrices: how far it went, and how far in a direction drawn at random."""

    tokens: list[list[list[int]]]
    losses: list[float]
    grad_norms: list[float]
    chosen_rewards: list[float]
    rejected_rewards: list[float]
    moved: dict[str, list[float]]


def starting_point(case: Case, root: Path) -> tuple[Path, Path]:
    """A tiny base and an adapter on it, both drawn at random: nothing was trained, so they are the same on every machine."""
    base, adapter = root / "base", root / "adapter"
    model, tokenizer = tiny_model(case.family), tiny_tokenizer(chat=case.template is not None)
    if case.template is not None:
        tokenizer.chat_template = case.template
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    torch.manual_seed(0)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "up_proj"],
        init_lora_weights=False,
    )
    model.name_or_path = str(base)
    get_peft_model(model, lora).save_pretrained(adapter)
    return base, adapter


def moved(before: Path, after: Path) -> dict[str, list[float]]:
    """``Trajectory.moved`` of an adapter's file after training."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    end = load_file(after)
    for name, start in sorted(load_file(before).items()):
        change = end[name].double() - start.double()
        direction = torch.randn(change.shape, generator=generator, dtype=torch.float64)
        found[name] = [float(change.norm()), float((change * direction).sum() / direction.norm())]
    return found


def train_with_trl(case: Case, root: Path) -> Trajectory:
    """DPOTrainer's run on the pairs, in the order in which ours takes them; without dropout, in fp32."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class InOurOrder(DPOTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return Order(len(PAIRS))

    base, adapter = starting_point(case, root)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter, is_trainable=True)
    settings = DPOConfig(
        str(root / "trl"), beta=BETA, loss_type=["sigmoid"], max_length=LONGEST, num_train_epochs=EPOCHS, learning_rate=RATE,
        weight_decay=DECAY, max_grad_norm=CLIP, lr_scheduler_type="constant", per_device_train_batch_size=SIZE,
        gradient_checkpointing=False, bf16=False, use_cpu=True, logging_steps=1, save_strategy="no", report_to=[],
        disable_tqdm=True,
    )  # fmt: skip
    trainer = InOurOrder(
        model, args=settings, train_dataset=Dataset.from_list(case.pairs()), processing_class=AutoTokenizer.from_pretrained(base)
    )  # fmt: skip
    trainer.train()
    model.set_adapter("default")
    model.save_pretrained(root / "trained", selected_adapters=["default"])
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Trajectory(
        [[list(row[f"{part}_ids"]) for part in ("prompt", "chosen", "rejected")] for row in trainer.train_dataset],
        [step["loss"] for step in steps],
        [step["grad_norm"] for step in steps],
        over_epochs([step["rewards/chosen"] for step in steps]),
        over_epochs([step["rewards/rejected"] for step in steps]),
        moved(adapter / "adapter_model.safetensors", root / "trained/adapter_model.safetensors"),
    )


class Order(Sampler[int]):
    """Our order of the pairs, epoch after epoch."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.count, 0, self.epoch))


def over_epochs(steps: list[float]) -> list[float]:
    """The mean over each epoch's pairs from the means of its steps, the last of which has fewer pairs."""
    sizes = [min(SIZE, len(PAIRS) - start) for start in range(0, len(PAIRS), SIZE)]
    return [
        sum(mean * size for mean, size in zip(steps[start : start + len(sizes)], sizes, strict=True)) / len(PAIRS)
        for start in range(0, len(steps), len(sizes))
    ]


def recorded(name: str) -> Trajectory:
    """What TRL gave for the case."""
    return Trajectory(**json.loads(RECORD.read_text("utf-8"))["cases"][name])


def _conversation(pair: dict[str, Any]) -> dict[str, Any]:
    role = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {field: [{"role": role[field], "content": text.strip()}] for field, text in pair.items()}


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as root:
            found[name] = asdict(train_with_trl(case, Path(root)))
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    RECORD.write_text(json.dumps({"versions": versions, "cases": found}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
