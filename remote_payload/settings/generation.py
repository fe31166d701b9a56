"""How a language model is asked for answers, and how many of them, once it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from remote_payload.settings.setting import setting


@dataclass
class Answering:
    """How a language model is asked, and how it chooses its words."""

    max_new_tokens: int = setting(256, "Longest answer, in tokens.", ge=1)
    temperature: float = setting(0.0, "0 takes the most probable token each time; higher is more varied.", ge=0)
    top_p: float = setting(1.0, "Sample among the most probable tokens that make up this share.", gt=0, le=1)
    repetition_penalty: float = setting(1.0, "Above 1 makes tokens that are already in the answer less probable.", gt=0)
    system_prompt: Optional[str] = setting(None, "A system message to ask with, other than the one of training.")


@dataclass
class Generation(Answering):
    """Answers to held-out prompts, by the tuned model and by its base, side by side."""

    examples: Optional[int] = setting(50, "Held-out prompts to answer; 0 for none, null for all of them.", ge=0)
    base: bool = setting(True, "Also answer them with the model that training started from, for comparison.")
    batch_tokens: Optional[int] = setting(
        None, "Prompts and answers that are in memory at once, in tokens; by itself 32,768 on a GPU.", ge=1
    )
    latency_examples: int = setting(
        4, "Prompts that the tuned model also answers one at a time, to measure latency.", ge=0
    )
