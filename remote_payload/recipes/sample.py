"""Asks a model: prompts in, text out. It trains nothing; ``gpurun sample`` runs it on the box, also while a run trains there.

    python -m remote_payload.recipes.sample --outputs outputs --checkpoint latest --prompt "In the year 1834,"

Prompts come from ``--prompt``, or as lines of JSON (``{"prompt": …}``) on stdin until it ends. It prints the lines of ``answers.py``: which
model was loaded, then an answer to each prompt; or an error, with exit code 2. On the laptop ``runner/local_model/worker/sample.py``
calls the same functions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from remote_payload.recipes.answers import Answer, Loaded, error_line, to_line
from remote_payload.train.data.chat import prompt_ids
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.continuations import with_room
from remote_payload.train.evaluation.generation import Sampling, generate
from remote_payload.train.files import read_json_object
from remote_payload.train.inference.asking import as_asked
from remote_payload.train.model.causal import Network
from remote_payload.train.model.model_facts import Prompting, prompting_of, read_model_facts
from remote_payload.train.results.checkpoint_model import load_any, load_base
from remote_payload.train.state.checkpoint import checkpoints_in

SPARE = 2 * 2**30  # bytes of GPU memory that stay free for a run on the same GPU
WORKSPACE = 1.5  # times the weights: key/value cache and activations of one prompt


@dataclass(frozen=True)
class Model:
    """A model that is ready to be asked, and how it was asked in training; ``base`` is true for the one that training began with."""

    folder: Path
    network: Network
    tokenizer: PreTrainedTokenizerBase
    prompting: Prompting
    base: bool


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        folder = options.folder or find_model(options.outputs, options.checkpoint)
        device = choose_device(options.device, folder)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = load(folder, device, dtype, base=options.base)
        print(to_line(describe(model)), flush=True)
        sampling = Sampling(
            options.max_new_tokens, options.temperature, options.top_p, options.repetition_penalty, options.seed
        )
        for prompt in prompts(options.prompt):
            print(to_line(answer(model, prompt, sampling)), flush=True)
    except InputError as error:
        print(error_line(str(error)), flush=True)
        return 2
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="sample", description="Asks a model: prompts in, text out.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--outputs", type=Path, help="a run's outputs, in which --checkpoint is looked for")
    where.add_argument("--folder", type=Path, help="a checkpoint or a finished model")
    parser.add_argument("--checkpoint", default="latest", help="latest, best or a checkpoint's name")
    parser.add_argument("--prompt", action="append", default=[], help="may be given several times")
    parser.add_argument("--base", action="store_true", help="the model that training began with")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the most probable token each time")
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--repetition-penalty", type=float, default=1.1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


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


def choose_device(wanted: str, folder: Path) -> torch.device:
    """``auto`` is CUDA where its free memory holds the model and leaves room for a run beside it, else Metal, else the CPU."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        weights = sum(
            path.stat().st_size for path in folder.glob("*.safetensors") if path.name.startswith(("model", "adapter"))
        )
        if free > WORKSPACE * weights + SPARE:
            return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(
    folder: Path, device: torch.device, dtype: torch.dtype, *, base: bool = False, base_path: str | Path | None = None
) -> Model:
    """The model in ``folder``, or with ``base`` the one that its training began with; ``base_path`` is the base model's folder here.

    Raises InputError for a folder that holds neither a checkpoint nor a finished model.
    """
    prompting = prompting_of(read_model_facts(folder))
    path = str(base_path) if base_path else None
    if not base:
        return Model(folder, *load_any(folder, path, device, dtype), prompting, base)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return Model(folder, load_base(folder, path, device, dtype), tokenizer, prompting, base)


def describe(model: Model) -> Loaded:
    """Which model this is, and where it runs."""
    file = model.folder / "manifest.json"
    manifest = read_json_object(file) if file.is_file() else {}
    device = model.network.device.type
    return Loaded(model.folder.name, model.base, device, manifest.get("step"), manifest.get("metrics") or {})


def prompts(given: list[str]) -> Iterator[str]:
    """The prompts of the command line; without any, those on stdin as they come. Raises InputError for a line that is none."""
    if given:
        yield from given
        return
    while line := sys.stdin.readline():
        if line.strip():
            try:
                yield str(json.loads(line)["prompt"])
            except (ValueError, KeyError, TypeError):
                raise InputError('a line on stdin is not {"prompt": …}') from None


def answer(model: Model, prompt: str, sampling: Sampling) -> Answer:
    """The answer to one prompt, which is put into the form that the model was trained on."""
    started = time.perf_counter()
    asked, chat = as_asked(model.tokenizer, prompt, model.prompting)
    ids = with_room(model.network, prompt_ids(model.tokenizer, asked, add_special_tokens=not chat))
    ends = model.prompting.get("end_tokens") or [model.tokenizer.eos_token_id]
    (found,) = generate(model.network, model.tokenizer, [ids], sampling, ends)
    return Answer(prompt, found.text, len(found.ids), round(time.perf_counter() - started, 3), found.ended)


if __name__ == "__main__":
    sys.exit(main())
