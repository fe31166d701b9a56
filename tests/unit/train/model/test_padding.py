"""Whether rows are padded: said by whoever padded them, or read back from the device, the model computes the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from remote_payload.train.model.classifier import Classifier, load_encoder
from remote_payload.train.model.padding import PADDED
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
