"""The loss of each document by itself is what the packed evaluation of ``finetune`` gives for all of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from remote_payload.train.data.packing import Document
from remote_payload.train.distributed import World
from remote_payload.train.evaluation.document_scores import score_documents
from remote_payload.train.evaluation.evaluation_sets import EvaluationSets
from remote_payload.train.evaluation.right_answers import contains_right, is_right
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.causal_files import load_network

ALONE = World(0, 1, 0, torch.device("cpu"))


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "llama"])
def test_documents_by_themselves_and_packed_give_the_same(tiny_folder: Callable[[str], Path], name: str) -> None:
    network = load_network(str(tiny_folder(name))).eval()
    for seed in range(10):
        draw = random.Random(seed)
        lengths = [draw.randint(4, 60) for _ in range(12)]
        documents = [
            Document(draw.choices(range(4, 300), k=length), [at > draw.randint(1, 2) for at in range(length)])
            for length in lengths
        ]
        scores = score_documents(network, documents)
        for document, score in zip(documents, scores, strict=True):
            packed = EvaluationSets({"it": [document], "more": documents}, 128).measure(
                CausalLoss(network), ALONE, torch.float32, 1
            )["it"]
            assert score.tokens == document.counted
            assert score.loss / score.tokens == pytest.approx(packed["loss"], abs=1e-4)
            assert score.correct / score.tokens == pytest.approx(packed["token_accuracy"])


@pytest.mark.parametrize("seed", range(50))
def test_words_decide_what_is_right(seed: int) -> None:
    """Capitals, spaces and punctuation change nothing; another word, or one less, does."""
    draw = random.Random(seed)
    words = draw.sample(["Brown", "of", "1901", "Zürich", "mayor", "Ångström"], 3)
    marks = [" ", ", ", "  ", "\n", " – "]
    written = "".join(draw.choice([str.upper, str.lower])(word) + draw.choice(marks) for word in words)
    right = " ".join(words)
    assert is_right(written, ["nobody", right]) and contains_right(f"It was {written}!", [right])
    assert not is_right(f"It was {written}", [right]) and not is_right(" ".join(words[1:]), [right])
    assert not contains_right(" ".join(reversed(words)), [right]) and not is_right("", [right])
