"""Starting on pre-tokenised rows against tokenising, on the same corpus in one process by turns.

    python -m tests.benchmarks.bench_tokens [--quick]

Both include reading the whole corpus: tokenising to read it, starting on rows that are there to check that they are still its own.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from remote_payload.train.data.facts import describe_files
from remote_payload.train.data.tokenizer import train_tokenizer
from remote_payload.train.data.tokens import Source, prepare_tokens
from tests.benchmarks.measure import Row, by_turns, rounds, run_piece, seconds

MEGABYTES = 16


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    size = MEGABYTES // 4 if quick else MEGABYTES
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus.txt", size << 20)
        tokenizer = train_tokenizer(iter([corpus.read_text()[: 1 << 20]]), 8000, 512)

        def start(mode: str) -> None:
            source = Source(describe_files([str(corpus)]), 512)
            tokens = prepare_tokens(Path(folder) / "rows", tokenizer, source, mode, say=lambda text: None)
            assert len(tokens.train) and tokens.train[len(tokens.train) // 2].any()

        fresh, cached = by_turns(
            rounds(quick), lambda: seconds(lambda: start("fresh")), lambda: seconds(lambda: start("cached"))
        )
    yield Row(
        f"starting to train on {size} MB of text: tokenising it, over finding it tokenised",
        statistics.median(fresh), statistics.median(cached), "s", 20.0, more_is_better=True, against="pre-tokenised",
        samples={"tokenising": fresh, "pre-tokenised": cached},
    )  # fmt: skip


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
