"""The worker's process: one request in, notes of progress and one result or error out."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from runner.local_model.worker import Refused


def main() -> None:
    """Answers the one request on stdin. What libraries print to stdout goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        say(result=smoke(json.load(sys.stdin), say))
    except Refused as error:
        say(error={"message": str(error), "hint": error.hint})
    except ImportError as error:
        message = f"a library that loading needs is not installed here ({error})"
        say(error={"message": message, "hint": "Install them beside gpurun: pip install 'gpurun[smoke]'"})
    except Exception as error:
        if os.environ.get("GPURUN_DEBUG"):
            raise
        ours = type(error).__name__ == "InputError"  # the training core's own sentence
        say(error={"message": str(error) if ours else f"it does not load or run here: {type(error).__name__}: {error}"})


def smoke(request: dict[str, Any], say: Any) -> dict[str, Any]:
    """Loads, checks, predicts, compares. The result's numbers are plain JSON."""
    import torch

    from runner.local_model.worker import device as devices
    from runner.local_model.worker.generate import generate
    from runner.local_model.worker.load import check_weights, load
    from runner.local_model.worker.predict import predict

    torch.manual_seed(0)
    device = devices.choose(request["device"])
    say(note=f"loading on {device}")
    began = time.perf_counter()
    model, tokenizer = load(request, torch.device(device), getattr(torch, request["dtype"]))
    devices.synchronize(device)
    loaded = time.perf_counter() - began
    check_weights(model)
    ask = generate if request["kind"] == "causal_lm" else predict
    answered = ask(request, model, tokenizer, device, say)
    return {
        "device": device,
        "device_name": devices.name(device),
        "torch": torch.__version__,
        "load_seconds": loaded,
        "peak_memory": devices.peak_memory(device),
        **answered,
    }


if __name__ == "__main__":
    main()
