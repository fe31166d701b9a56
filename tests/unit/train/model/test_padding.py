"""Whether rows are padded: said by whoever padded them, or read back from the device, the model computes the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function, or_masks

from remote_payload.train.model.classifier import Classifier, load_encoder
from remote_payload.train.model.padding import PADDED, known_padding
from tests.support.models.tiny_models import ENCODERS
from tests.support.waits import counted_waits


@pytest.mark.parametrize("name", [*ENCODERS, "qwen2"])
def test_what_is_known_of_the_padding_changes_nothing_and_spares_the_wait(
    name: str, tiny_folder: Callable[[str], Path]
) -> None:
    encoder = load_encoder(str(tiny_folder(name)), torch.float32)
    assert encoder.config._attn_implementation == PADDED
    model, draw = Classifier(encoder, 3).eval(), random.Random(name)
    plain = Classifier(load_encoder(str(tiny_folder(name)), torch.float32), 3).eval()
    plain.load_state_dict(model.state_dict())
    plain.encoder.set_attn_implementation("sdpa")
    for turn in range(8):
        lengths = [draw.randint(1, 40) for _ in range(draw.randint(1, 5))] if turn % 2 else [draw.randint(1, 40)] * 3
        ids = torch.randint(4, 380, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(turn))
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        with torch.no_grad():
            expected = plain(ids, mask)
            assert torch.equal(model(ids, mask), expected)
            with counted_waits(list(model.parameters()), list(model.buffers()), ids, mask) as waits:
                found = model(ids, mask, min(lengths) < max(lengths))
        assert torch.equal(found, expected) and not waits.places


class FromHost(TorchDispatchMode):
    """The shapes of what is copied from the host to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and found.device.type != "cpu":
            self.copied.append(args[0].shape)
        return found


def test_the_mask_of_an_encoder_copies_nothing_from_the_host() -> None:
    """Gemma 3 in both directions makes a tensor of ``True`` on the host for each mask, and waited for its copy."""
    both_ways = or_masks(causal_mask_function, lambda *_: torch.tensor(True, dtype=torch.bool))
    make, padded = ALL_MASK_ATTENTION_FUNCTIONS[PADDED], torch.ones((3, 24), dtype=torch.bool)
    here = make(3, 24, 24, mask_function=both_ways, attention_mask=padded, use_vmap=True, device="cpu")
    assert here is None or here.all()
    with FromHost() as seen, known_padding(True):
        mask = make(3, 24, 24, mask_function=both_ways, attention_mask=padded.to("meta"), use_vmap=True, device="meta")
    assert mask.shape == (3, 1, 24, 24) and seen.copied == [torch.Size([3, 24])]  # the padding, by this test
