"""Groups of settings that the recipes share. A recipe composes the ones it needs; nothing is inherited.

A group's defaults are the same in every recipe, so that a job file that gives one value of a group leaves the others as
documented here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Optional, Union

from remote_payload.settings.setting import setting

# Settings that older job files have, and what to do about them.
RETIRED = {
    "higher_is_better": "delete it: the recipe knows which way each metric is better",
}


@dataclass
class Optimizer:
    """AdamW, fused where the device has it. Biases, norms and other vectors are not decayed."""

    learning_rate: float = setting(2e-4, "Peak learning rate.", gt=0)
    weight_decay: float = setting(0.01, "Decay of matrices; vectors are never decayed.", ge=0)
    beta1: float = setting(0.9, "Decay of the first moment.", ge=0, lt=1)
    beta2: float = setting(0.999, "Decay of the second moment.", ge=0, lt=1)
    epsilon: float = setting(1e-8, "Added to the denominator.", gt=0)
    clip: float = setting(1.0, "Largest norm of the whole gradient; 0 does not clip.", ge=0)


@dataclass
class Schedule:
    """The learning rate over the run, after a linear warm-up."""

    name: Literal["cosine", "linear", "constant"] = setting("cosine", "Shape after the warm-up.")
    warmup: float = setting(0.05, "Below 1: share of all steps. From 1 on: number of steps.", ge=0)
    final: float = setting(0.0, "Share of the peak rate that is left at the end.", ge=0, le=1)


@dataclass
class Batch:
    """How many examples make one optimizer step, and how they go through the device."""

    size: int = setting(32, "Examples in one optimizer step, over all micro-batches and GPUs.", ge=1)
    micro: Union[int, Literal["auto"]] = setting(
        "auto",
        "Rows of full length that go through one device at once; auto finds what fits, and an OOM halves it.",
        ge=1,
    )
    activation_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: less memory, about a third slower."
    )
    compile: Union[bool, Literal["auto"]] = setting(
        "auto", "torch.compile; auto uses it on CUDA when shapes are fixed and the run is long enough to pay for it."
    )


@dataclass
class Checkpoint:
    """Folders to resume from. The best one by `evaluation.metric` is kept whatever its age."""

    every_steps: Optional[int] = setting(None, "Steps between two checkpoints; wins over every_epochs.", ge=1)
    every_epochs: Optional[float] = setting(1.0, "Epochs between two checkpoints, 0.2 for five an epoch.", gt=0)
    at_start: bool = setting(False, "Save before the first step too.")
    keep: Optional[int] = setting(3, "How many of the latest are kept beside the best; null keeps all.", ge=1)
    resumable: Optional[int] = setting(
        None,
        "How many of the latest can be resumed from; older ones keep only their weights, a third of the size. null: all.",
        ge=1,
    )


@dataclass
class Evaluation:
    """When to evaluate, and what decides which model is the best."""

    every_steps: Optional[int] = setting(None, "Steps between two evaluations; wins over every_epochs.", ge=1)
    every_epochs: Optional[float] = setting(
        1.0, "Epochs between two evaluations; null with every_steps null evaluates only at the end.", gt=0
    )
    at_start: bool = setting(
        False, "Evaluate before the first step too, for comparison: an untrained model is never chosen as the best."
    )
    metric: str = setting(
        "loss",
        "The metric that selects the best model. The recipe knows which it reports, and which way each is better.",
    )
    patience: int = setting(0, "Stop after so many evaluations without a better metric; 0 never stops early.", ge=0)


WRITE_TOKEN = "HF_PUBLISH_TOKEN"  # the variable, and the secret of a run, with a token for publishing and nothing else


@dataclass
class Publish:
    """The repository of the finished model on the Hub. Needs a token that may write: `secrets: [HF_PUBLISH_TOKEN]`."""

    repository: Optional[str] = setting(
        None,
        "Model repository, such as me/london-slm; {name} in it is the run's name. Nothing is published without it.",
    )
    private: bool = setting(True, "Create the repository as a private one.")
    update: bool = setting(False, "Go on where the repository has other content: a new commit on top of it.")


@dataclass
class Lora:
    """Low-rank adapters (https://arxiv.org/abs/2106.09685) on a frozen base model."""

    rank: int = setting(16, "Rank of the adapters; 0 trains all weights of the model instead.", ge=0)
    alpha: float = setting(32, "Scale: the adapter's output is multiplied by alpha / rank.", gt=0)
    dropout: float = setting(0.0, "Dropout before the adapters.", ge=0, lt=1)
    targets: Union[List[str], Literal["auto", "all-linear"]] = setting(
        "auto", "Names of the linear layers that get one; auto takes the attention projections."
    )
