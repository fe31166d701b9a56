"""Starting on pre-tokenised rows against tokenising, on the same corpus in one process by turns.

    python -m tests.benchmarks.bench_tokens [--megabytes 16] [--rounds 3]

Both include reading the whole corpus: tokenising to read it, starting on rows that are there to check that they are still its own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remote_payload.train.corpus import fingerprint
from remote_payload.train.tokenizer import train_tokenizer
from remote_payload.train.tokens import Source, prepare_tokens

BOUND = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus.txt", options.megabytes << 20)
        tokenizer = train_tokenizer(iter([corpus.read_text()[: 1 << 20]]), 8000, 512)

        def start(mode: str) -> None:
            source = Source(fingerprint([str(corpus)]), 512)
            tokens = prepare_tokens(Path(folder) / "rows", tokenizer, source, mode, say=lambda text: None)
            assert len(tokens.train) and tokens.train[len(tokens.train) // 2].any()

        pairs = [(seconds(start, "fresh"), seconds(start, "cached")) for _ in range(options.rounds)]
    by_hand, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = by_hand / ours
    print(f"pre-tokenised start: {ours:.3f} s / {by_hand:.3f} s = {ratio:.1f} ({BOUND:.0f})")
    print(json.dumps({"name": "pre-tokenised start", "ours": ours, "by_hand": by_hand, "ratio": ratio, "bound": BOUND}))


def seconds(work: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def write_corpus(path: Path, size: int) -> Path:
    """Text with words as unevenly common as a language's, in paragraphs."""
    generator = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 10))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    with open(path, "w") as file:
        while file.tell() < size:
            paragraphs = (" ".join(generator.choices(words, weights, k=80)) + ".\n\n" for _ in range(200))
            file.writelines(paragraphs)
    return path


if __name__ == "__main__":
    main()
