from __future__ import annotations

import pytest
import torch

from tests.support.models.tiny_models import CAUSAL, ENCODERS, VOCABULARY, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("name", ENCODERS)
def test_a_tiny_encoder_sees_text_in_both_directions(name: str) -> None:
    model = tiny_model(name)
    ids = torch.arange(10, 20)[None]
    changed = ids.clone()
    changed[0, -1] = 50
    first = [model(input_ids=x, attention_mask=torch.ones_like(x)).last_hidden_state[0, 0] for x in (ids, changed)]
    assert not torch.allclose(*first), "the first token does not see the last one"


@pytest.mark.parametrize("name", CAUSAL)
def test_a_tiny_language_model_predicts_from_the_past_only(name: str) -> None:
    model = tiny_model(name)
    ids = torch.arange(10, 20)[None]
    changed = ids.clone()
    changed[0, -1] = 50
    logits = [model(input_ids=x).logits for x in (ids, changed)]
    assert logits[0].shape == (1, 10, VOCABULARY)
    assert torch.allclose(logits[0][0, :-1], logits[1][0, :-1])
    assert not torch.allclose(logits[0][0, -1], logits[1][0, -1])


def test_the_tiny_tokenizer_writes_chats_and_gives_text_back() -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == VOCABULARY
    text = 'Grüße, {"a": [1, null]}'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
