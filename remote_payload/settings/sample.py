"""What ``sample`` can be told: how a model is tried with a few prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from remote_payload.settings.generation import Answering
from remote_payload.settings.setting import group, required, setting


@dataclass
class SampleSettings:
    """How prompts are answered."""

    base: bool = setting(False, "Also answer with the model that training began with.")
    samples: int = setting(1, "Answers to each prompt.", ge=1)
    seed: int = setting(0, "Of the first sample of each prompt; each further one has the next number.", ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "The device.")
    answering: Answering = group(Answering, "How a language model answers.")


@dataclass
class SampleOrder:
    """The same for a run's model on its own box."""

    outputs: str = required("The run's outputs.")
    checkpoint: str = required("latest, best or the name of a checkpoint.")
    settings: SampleSettings = group(SampleSettings, "How prompts are answered.")
