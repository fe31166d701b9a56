import json
import random

import pytest
import torch
from safetensors.torch import load_file

from remote_payload.train.download import BaseModel
from remote_payload.train.model import greedy_decoding
from remote_payload.train.model.causal_files import load_causal, save_causal
from remote_payload.train.model.greedy_decoding import decode_greedily
from remote_payload.train.results.causal_smoke import write_causal_smoke
from tests.support.models.tiny_models import CAUSAL, tiny_model, tiny_tokenizer
from tests.support.waits import counted_waits

INPUTS = [
    {"prompt": "The ship left", "add_special_tokens": True},
    {"prompt": "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n", "add_special_tokens": False},
]


def by_definition(model, ids, count):
    tokens = []
    for _ in range(count):
        tokens.append(int(model(torch.tensor([[*ids, *tokens]])).logits[0, -1].argmax()))
    return tokens


@pytest.mark.parametrize("name", CAUSAL)
def test_tokens_are_the_plain_argmax_and_logits_those_of_the_prompt(name):
    model, tokenizer = tiny_model(name, seed=1), tiny_tokenizer()
    ids = [tokenizer(each["prompt"], add_special_tokens=each["add_special_tokens"])["input_ids"] for each in INPUTS]
    free = [by_definition(model, each, 16) for each in ids]
    end = free[0][3]
    logits, tokens = decode_greedily(model, tokenizer, INPUTS, [end])
    for row, expected in enumerate(free):
        cut = expected[: expected.index(end) + 1] if end in expected else expected
        assert tokens[row].tolist() == cut + [-1] * (16 - len(cut))
        torch.testing.assert_close(logits[row], model(torch.tensor([ids[row]])).logits[0, -1])
    assert -1 in tokens[0]


def test_how_often_the_end_is_looked_for_changes_nothing_and_the_host_waits_no_oftener(monkeypatch):
    draw, model, tokenizer = random.Random(3), tiny_model("qwen2", seed=1), tiny_tokenizer()
    every = [token for row in decode_greedily(model, tokenizer, INPUTS, [])[1].tolist() for token in row]
    for _ in range(8):
        ends, new_tokens, apart = draw.sample(every, 2), draw.randint(1, 20), draw.randint(2, 9)
        monkeypatch.setattr(greedy_decoding, "READ_EVERY", {})
        logits, tokens = decode_greedily(model, tokenizer, INPUTS, ends, new_tokens)
        monkeypatch.setattr(greedy_decoding, "READ_EVERY", {"cpu": apart})
        with counted_waits(list(model.parameters()), list(model.buffers())) as waits:
            found = decode_greedily(model, tokenizer, INPUTS, ends, new_tokens)
        assert torch.equal(found[0], logits) and torch.equal(found[1], tokens)
        reads = sum(-(-(int((row >= 0).sum())) // apart) for row in tokens)
        assert len(waits.places) == reads + 1, waits.places  # the prompts' logits are read once, at the end


def test_a_model_with_learned_positions_stops_at_the_last_of_them():
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer()
    long = {"prompt": "word " * 505, "add_special_tokens": False}
    length = len(tokenizer(long["prompt"])["input_ids"])
    while length > 508:
        long["prompt"] = long["prompt"][:-5]
        length = len(tokenizer(long["prompt"])["input_ids"])
    _, tokens = decode_greedily(model, tokenizer, [long], [])
    assert (tokens >= 0).sum() == 512 - length


def test_what_travels_is_what_the_reloaded_model_says(tmp_path, tiny_folder):
    base = str(tiny_folder("qwen2"))
    save_causal(tiny_model("qwen2"), tiny_tokenizer(), tmp_path, BaseModel(base, base), {"recipe": "sft"})
    write_causal_smoke(tmp_path, base, INPUTS, [3], torch.device("cpu"))
    lines = (tmp_path / "smoke" / "inputs.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == INPUTS
    stored = load_file(tmp_path / "smoke" / "expected.safetensors")
    network, tokenizer = load_causal(tmp_path)
    logits, tokens = decode_greedily(network, tokenizer, INPUTS, [3])
    assert torch.equal(stored["logits"], logits) and stored["logits"].dtype == torch.float32
    assert torch.equal(stored["tokens"], tokens) and stored["tokens"].shape == (2, 16)
    about = json.loads((tmp_path / "smoke" / "about.json").read_text())
    assert about == {"dtype": "float32", "device": "cpu", "rows": 2, "end_tokens": [3]}
