"""Rows a second of ``gpurun predict`` beside transformers' own pipeline, on the same texts and the same model, from file to file.

    python -m tests.benchmarks.bench_predict [--quick]

The model is a sequence classifier of MiniLM's shape with random weights; the texts are ragged, as those of the web are. The pipeline is
measured as its documentation has it (one text at a time) and with batches of 32, which it pads to the longest text of each. The third row
is the time of the products of all tokens, without padding, with the weights of the layers: in fp32 nothing takes less.

Seconds are those of the processor, one core for each: on a busy machine they are the same.
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

LONGEST, WIDTH, LAYERS = 256, 384, 6


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
            began = time.process_time()
            predict_files(
                target, PredictSettings([str(root / "texts.jsonl")], str(output)), World(0, 1, 0, target.device)
            )
            return len(texts) / (time.process_time() - began)

        def theirs(size: int) -> float:
            began = time.process_time()
            with (root / "theirs.jsonl").open("w") as file:
                for found in asked(texts, batch_size=size, truncation=True, max_length=LONGEST):
                    file.write(json.dumps(found) + "\n")
            return len(texts) / (time.process_time() - began)

        lengths = map(len, target.tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"])
        tokens = sum(lengths)

        def products() -> float:
            return len(texts) / matrix_products(tokens)

        measured = by_turns(min(rounds(quick), 3), ours, lambda: theirs(1), lambda: theirs(32), products)
        others = (
            ("the pipeline one at a time", "pipeline", None),
            ("the pipeline in batches of 32", "pipeline", 2.0),
            ("the matrix products alone", "products", None),
        )
        for (name, short, bound), samples in zip(others, measured[1:], strict=True):
            yield Row(
                f"predict, ragged texts, beside {name}", statistics.median(measured[0]), statistics.median(samples), "rows/s", bound,
                more_is_better=True, against=short, samples={"ours": measured[0], short: samples},
            )  # fmt: skip


def matrix_products(tokens: int) -> float:
    """Seconds of the products of so many tokens with the weights of all layers, a thousand tokens at once."""
    square = [torch.randn(WIDTH, WIDTH) for _ in range(4)]
    wide, narrow = torch.randn(WIDTH, 4 * WIDTH), torch.randn(4 * WIDTH, WIDTH)
    began = time.process_time()
    for start in range(0, tokens, 1024):
        given = torch.randn(min(1024, tokens - start), WIDTH)
        for _ in range(LAYERS):
            for matrix in square:
                given @ matrix
            (given @ wide) @ narrow
    return time.process_time() - began


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
        vocab_size=384, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=12, intermediate_size=4 * WIDTH, pad_token_id=1,
        max_position_embeddings=LONGEST,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
