"""A run's curves at Weights & Biases, where ``WANDB_API_KEY`` is set (``secrets: [WANDB_API_KEY]`` in the job file).

That key is the one log-in. No trouble with the package, the network or the service ends training or holds it up: a start waits
START seconds at most, an end FINISH seconds, and what W&B keeps on the disk lies beside the TensorBoard files, so that it comes home
and ``wandb sync`` can send it later.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

START = 30.0  # seconds; the package's own 90 are paid for on a rented box
FINISH = 60.0  # seconds; the package itself tries for as long as the network is gone, and the run would not end

Say = Callable[[str], None]


class WandbRun:
    """A run at W&B that has begun. Use ``start``."""

    def __init__(self, run: Any, folder: Path) -> None:
        self._run, self._folder = run, folder

    @property
    def url(self) -> str:
        """The page of the run."""
        return str(self._run.url)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve. Raises whatever the package raises."""
        self._run.log(numbers, step=step)

    def finish(self, say: Say) -> None:
        """Waits until all is sent, FINISH seconds at most; ``say`` tells where the rest lies."""
        done = threading.Event()

        def work() -> None:
            with suppress(Exception):
                self._run.finish()
                done.set()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(FINISH)
        if not done.is_set():
            say(f"W&B has not got everything; the rest is in {self._folder}: wandb sync sends it")


def start(run_id: str, config: dict[str, Any], folder: Path, record: Path | None, resumed: bool) -> WandbRun | None:
    """The run at W&B: a new one, or the one that ``record`` remembers where the run is ``resumed``. None without a key, and
    where W&B could not be had, which is said on stderr. Its files lie in ``folder`` unless ``WANDB_DIR`` says otherwise.
    """
    if not os.environ.get("WANDB_API_KEY"):
        return None
    try:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "gpurun"), name=run_id, config=config,
            dir=os.environ.get("WANDB_DIR", str(folder)), settings=wandb.Settings(init_timeout=START),
            **(_again(record) if resumed else {}),
        )  # fmt: skip
        if record:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"id": run.id, "url": run.url}) + "\n", encoding="utf-8")
        return WandbRun(run, folder / "wandb")
    except Exception as error:
        print(f"W&B is left out: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return None


def _again(record: Path | None) -> dict[str, str]:
    """What continues the run that ``record`` remembers; nothing where there is none that can be read."""
    try:
        return {"id": json.loads(record.read_text("utf-8"))["id"], "resume": "allow"} if record else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
