"""Tokenising as a run does it: on all cores beside one, and beside rows that are there already.

    python -m tests.benchmarks.bench_tokens [--quick]

Each measurement is a run of ``pretrain`` in a process with the environment that the agent gives a payload, from the beginning of
its phase "data" to the beginning of its phase "model", by its own events: reading the corpus, training the tokenizer, tokenising.
Where the rows are there already, they and the corpus are compared with their sha256.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from remote_payload.agent.run import payload_command
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.wire.launch_request import Code, LaunchRequest
from remote_payload.agent.wire.paths import BoxPaths
from tests.benchmarks.measure import Row, by_turns, rounds, run_piece

ROOT = Path(__file__).resolve().parents[2]
MEGABYTES = 16
RUN = "tokens-20260102-142030-7f3a"
ONE_CORE = {"TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    size = MEGABYTES // 4 if quick else MEGABYTES
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus.txt", size << 20)
        one, fresh, cached = by_turns(
            rounds(quick),
            lambda: data_phase(Path(folder), corpus, "fresh", ONE_CORE),
            lambda: data_phase(Path(folder), corpus, "fresh", {}),
            lambda: data_phase(Path(folder), corpus, "cached", {}),
        )
    name = f"from {size} MB of text to rows of tokens in a run"
    yield Row(
        f"{name}: tokenising it, over finding it tokenised",
        statistics.median(fresh), statistics.median(cached), "s", 10.0, more_is_better=True, against="pre-tokenised",
        samples={"tokenising": fresh, "pre-tokenised": cached},
    )  # fmt: skip
    yield Row(
        f"{name}: on one core, over on all",
        statistics.median(one), statistics.median(fresh), "s", 1.3, more_is_better=True, against="on all cores",
        samples={"one core": one, "all cores": fresh},
    )  # fmt: skip


def data_phase(folder: Path, corpus: Path, tokens: str, variables: dict[str, str]) -> float:
    """Seconds that a run takes until it builds its model; the caches of the next one are left in ``folder``."""
    paths = BoxPaths(str(folder / "box"))
    run = paths.run(RUN)
    settings = {
        "corpus": str(corpus), "vocabulary": 8000, "max_length": 512, "tokens": tokens, "max_steps": 1, "validation_rows": 1,
        "model": {"layers": 1, "heads": 1, "width": 16}, "batch": {"size": 1, "micro": 1}, "smoke_rows": 1,
    }  # fmt: skip
    asked = LaunchRequest(
        run_id=RUN, job={"name": "tokens", "recipe": "pretrain", "settings": settings}, code=Code(), data=(), outputs=(),
        interpreter=sys.executable, payload=None, command=(), module="remote_payload.recipes.pretrain", torchrun=False,
        processes=None, variables={"PYTHONPATH": str(ROOT), **variables}, secrets={}, gpus=0, queue=False, time_limit=None,
        log_limit=None, cost_limit=None, resume=None,
    )  # fmt: skip
    Path(run.outputs).mkdir(parents=True, exist_ok=True)
    Path(run.events).unlink(missing_ok=True)
    (Path(run.folder) / "job.json").write_text(json.dumps(asked.job))
    launch = LaunchFile(payload_command.arguments(asked, 0), payload_command.variables(paths, run, asked))
    environment = payload_command.environment(launch, (), (), {})
    for name in ("TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS"):  # whoever measures may have set them; a box does not
        if name not in launch.environment:
            environment.pop(name, None)
    done = subprocess.run(launch.argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in Path(run.events).read_text().splitlines()]
    began = {event["name"]: event["t"] for event in events if event["type"] == "phase"}
    return float(began["model"] - began["data"])


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
