"""Tries a model of a run: prompts in, answers out. It trains nothing; ``gpurun sample`` runs it on the box, also while a run trains there.

It prints ``{"ready": true}`` and reads its order from stdin (``SampleOrder``), then a prompt a line (``{"prompt": …}``) until stdin ends.
It prints the lines of ``answers.py``: which model was loaded, then what came of each prompt; or an error, with exit code 2. On the laptop
``runner/local_model/worker/sample.py`` does the same with the same code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from remote_payload.recipes.answers import error_line, to_line
from remote_payload.settings.reading import SettingError, read_settings
from remote_payload.settings.sample import SampleOrder
from remote_payload.train.errors import InputError
from remote_payload.train.inference.trying import choose_device, describe, load_trial
from remote_payload.train.model.precision import resolve_precision
from remote_payload.train.state.checkpoint import checkpoints_in


def main() -> int:
    print(json.dumps({"ready": True}), flush=True)
    try:
        order = read_settings(SampleOrder, json.loads(sys.stdin.readline()))
        folder = find_model(Path(order.outputs), order.checkpoint)
        device = choose_device(order.settings.device, folder)
        trial = load_trial(folder, order.settings, device, resolve_precision("auto", device))
        print(to_line(describe(trial, folder)), flush=True)
        for prompt in prompts():
            print(to_line(trial.answer(prompt)), flush=True)
    except (InputError, SettingError) as error:
        print(error_line(str(error)), flush=True)
        return 2
    return 0


def find_model(outputs: Path, name: str) -> Path:
    """The folder that ``latest``, ``best`` or a checkpoint's name stands for. Raises InputError naming those that are there."""
    there = checkpoints_in(outputs / "checkpoints")
    best = outputs / "models" / "best"
    finished = [best] if (best / "manifest.json").is_file() else []
    chosen: list[Path] = []
    if name == "latest":
        chosen = [found.path for found in there[-1:]] or finished
    elif name == "best":
        chosen = finished
    else:
        chosen = [found.path for found in there if found.path.name == name]
    if not chosen:
        names = [found.path.name for found in there] + (["best"] if finished else [])
        raise InputError(f"there is no checkpoint {name} yet; there are: {', '.join(names) or 'none'}")
    return chosen[0]


def prompts() -> Iterator[str]:
    """The prompts on stdin as they come. Raises InputError for a line that is none."""
    while line := sys.stdin.readline():
        if line.strip():
            try:
                yield str(json.loads(line)["prompt"])
            except (ValueError, KeyError, TypeError):
                raise InputError('a line on stdin is not {"prompt": …}') from None


if __name__ == "__main__":
    sys.exit(main())
