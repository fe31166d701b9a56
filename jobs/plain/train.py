"""A model of which letter follows which two, learnt from this folder's own text: no GPU, no framework, a real run."""

import argparse
import collections
import json
import math
import os
import pathlib
import time

import humanize


def events(**event: object) -> None:
    """One line for `gpurun status`; a script that writes none works too."""
    if "GPURUN_EVENTS" in os.environ:
        with open(os.environ["GPURUN_EVENTS"], "a") as file:
            file.write(json.dumps({"t": time.time(), **event}) + "\n")


def bits(model: dict[str, collections.Counter[str]], text: str) -> float:
    """Cross-entropy in bits per letter, with add-one smoothing over 96 printable letters."""
    loss = 0.0
    for at in range(2, len(text)):
        counts = model.get(text[at - 2 : at], collections.Counter())
        loss -= math.log2((counts[text[at]] + 1) / (counts.total() + 96))
    return loss / max(1, len(text) - 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    text = "".join(path.read_text() for path in sorted(pathlib.Path(".").glob("*.py")))
    cut = len(text) * 4 // 5
    model: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for epoch in range(1, epochs + 1):
        for at in range(2, cut):
            model[text[at - 2 : at]][text[at]] += 1
        loss = bits(model, text[cut:])
        print(f"epoch {epoch}/{epochs}  held-out loss {loss:.3f} bits a letter", flush=True)
        events(type="step", step=epoch, total=epochs, epoch=epoch, loss=loss)
    out = pathlib.Path("models/trigrams.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(model))
    print(f"wrote {out} ({humanize.naturalsize(out.stat().st_size)})")


main()
