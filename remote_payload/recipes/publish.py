"""Publishes a run's model from the box, where its weights lie; ``gpurun publish --on-box`` runs it in the run's environment.

It prints ``{"ready": true}``, reads one line of JSON from stdin (``Order``, with the token, which is nowhere else on the box), and prints
``{"published": {…}}`` or ``{"problem": {…}}``. A line about every half a minute says that it goes on.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from remote_payload.publish.problem import PublishProblem
from remote_payload.publish.report import PublishReport

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
    # The environment is that of a run whose downloads are over; the client reads these when it is imported.
    os.environ.pop("HF_HUB_OFFLINE", None)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub import HfApi

    from remote_payload.publish.publication import Wish, run_publication

    wish = Wish(Path(order.folder), order.repository, order.title, order.public)
    if not wish.folder.is_dir():
        raise PublishProblem("the run has no finished model on the box", hint="See what it has: gpurun checkpoints")
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
