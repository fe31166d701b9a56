"""Rows a second of ``gpurun predict`` beside transformers' own pipeline, on the same texts and the same model, from file to file.

    python -m tests.benchmarks.bench_predict [--quick]

The model is a sequence classifier of MiniLM's shape with random weights; the texts are ragged, as those of the web are. The pipeline is
measured as its documentation has it (one text at a time) and with batches of 32, which it pads to the longest text of each.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, pipeline

from remote_payload.settings.predict import PredictSettings
from remote_payload.train.distributed import World
from remote_payload.train.inference.predicting import predict_files
from remote_payload.train.inference.target import load_target
from tests.benchmarks.measure import Row, by_turns, rounds, run_piece
from tests.support.models.tiny_models import CORPUS, tiny_tokenizer

LONGEST = 256


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        texts = ragged(root / "texts.jsonl", 128 if quick else 256)
        model = minilm(root / "model")
        target = load_target(model)
        asked = pipeline("text-classification", model=str(model), device="cpu", top_k=None)

        def ours() -> float:
            output = root / "ours.jsonl"
            output.unlink(missing_ok=True)
            began = time.perf_counter()
            predict_files(
                target, PredictSettings([str(root / "texts.jsonl")], str(output)), World(0, 1, 0, target.device)
            )
            return len(texts) / (time.perf_counter() - began)

        def theirs(size: int) -> float:
            began = time.perf_counter()
            with (root / "theirs.jsonl").open("w") as file:
                for found in asked(texts, batch_size=size, truncation=True, max_length=LONGEST):
                    file.write(json.dumps(found) + "\n")
            return len(texts) / (time.perf_counter() - began)

        measured = by_turns(min(rounds(quick), 3), ours, lambda: theirs(1), lambda: theirs(32))
        own, alone, batched = map(statistics.median, measured)
        for name, other, bound in (("one at a time", alone, None), ("in batches of 32", batched, 2.0)):
            yield Row(
                f"predict, ragged texts, beside the pipeline {name}", own, other, "rows/s", bound,
                more_is_better=True, against="pipeline", samples={"ours": measured[0], "pipeline": measured[1 if bound is None else 2]},
            )  # fmt: skip


def ragged(path: Path, count: int) -> list[str]:
    """Texts whose lengths are log-normal, to longer than the model takes; also as JSON Lines in the file."""
    generator = random.Random(0)
    words = " ".join(CORPUS).split()
    texts = [" ".join(generator.choices(words, k=int(generator.lognormvariate(3.0, 1.0)) + 1)) for _ in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return texts


def minilm(folder: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=384, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, pad_token_id=1,
        max_position_embeddings=LONGEST,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
