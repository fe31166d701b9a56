"""Publishes a run's model, or one of its checkpoints, from the box, where its weights lie. ``gpurun publish --on-box`` runs it in the
run's environment.

It prints ``{"ready": true}``, reads one line of JSON from stdin (``Order``, with the token, which is nowhere else on the box), and prints
``{"published": {…}}`` or ``{"problem": {…}}``. A line about every half a minute says that it goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remote_payload.publish.contents import is_checkpoint
from remote_payload.publish.problem import PublishProblem
from remote_payload.publish.report import PublishReport

FINISHING = "remote_payload.train.inference.finishing"
STILL = 30.0  # seconds between two signs of life


@dataclass(frozen=True)
class Order:
    """What the laptop asks for. ``folder`` is the model's; ``token`` writes to the repository."""

    folder: str
    repository: str
    title: str
    endpoint: str
    token: str | None
    public: bool
    update: bool
    dry_run: bool
    evaluated: dict[str, Any] | None = None  # the fields of ``Evaluated``

    def line(self) -> bytes:
        """As ``main`` reads it. The run's own version may be an older one, which knows no evaluation."""
        fields = asdict(self)
        if self.evaluated is None:
            del fields["evaluated"]
        return json.dumps(fields).encode() + b"\n"


def main() -> int:
    _print({"ready": True})
    order = Order(**json.loads(sys.stdin.readline()))
    over = threading.Event()
    threading.Thread(target=_say_that_it_goes_on, args=(over,), daemon=True).start()
    try:
        _print({"published": asdict(carry_out(order))})
    except PublishProblem as problem:
        _print(
            {
                "problem": {
                    "message": problem.message,
                    "kind": problem.kind,
                    "meaning": problem.meaning,
                    "hint": problem.hint,
                }
            }
        )
    finally:
        over.set()
    return 0


def carry_out(order: Order) -> PublishReport:
    """Publishes, or with ``dry_run`` only looks. Raises PublishProblem."""
    with _model(Path(order.folder), order.title) as folder:
        return _publish(order, folder)


@contextmanager
def _model(folder: Path, title: str) -> Iterator[Path]:
    """The folder to publish: a finished model's own, or what a checkpoint is converted to, as long as the context lasts."""
    if not (folder / "manifest.json").is_file():
        what = "finished model" if folder.name == "best" else f"complete checkpoint {folder.name}"
        raise PublishProblem(f"the run has no {what} on the box", hint="See what it has: gpurun checkpoints")
    if not is_checkpoint(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=os.environ.get("GPURUN_RUN_DIR")) as place:
        finished = Path(place) / folder.name
        # A process of its own, offline: the base model is in the cache, and this process asks the Hub as who publishes.
        done = subprocess.run(
            [sys.executable, "-m", FINISHING, str(folder), str(finished), title],
            env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stdout.strip().splitlines() or ["the process that converts it was ended"])[-1]
            raise PublishProblem(f"{folder.name} was not converted: {said}")
        yield finished


def _publish(order: Order, folder: Path) -> PublishReport:
    # The environment is that of a run whose downloads are over; the client reads these when it is imported.
    os.environ.pop("HF_HUB_OFFLINE", None)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub import HfApi

    from remote_payload.publish.evaluation import Evaluated
    from remote_payload.publish.publication import Wish, run_publication

    evaluated = Evaluated(**order.evaluated) if order.evaluated else None
    wish = Wish(folder, order.repository, order.title, order.public, evaluated=evaluated)
    api = HfApi(endpoint=order.endpoint, token=order.token or False)
    return run_publication(
        api, wish, token=order.token, read_token=order.token, update=order.update, dry_run=order.dry_run
    )


def _say_that_it_goes_on(over: threading.Event) -> None:
    while not over.wait(STILL):
        print("publishing goes on", flush=True)


def _print(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main())
