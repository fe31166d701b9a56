"""A model that is tried with a few prompts: a language model's answers, beside those of the model that training began with, or what a
classifier says."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from remote_payload.recipes.answers import Answer, Answered, Classified, Loaded
from remote_payload.settings.sample import SampleSettings
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.generation import Sampling, sampling_of
from remote_payload.train.files import read_json_object
from remote_payload.train.inference.asking import answers, as_asked, prompt_tokens, told_to
from remote_payload.train.inference.scores import probabilities, tokens_of
from remote_payload.train.inference.target import Target, load_target
from remote_payload.train.inference.written import classified

SPARE = 2 * 2**30  # bytes of GPU memory that stay free for a run on the same GPU
WORKSPACE = 1.5  # times the weights: key/value cache and activations of one prompt


@dataclass(frozen=True)
class Trial:
    """A model that is ready to be asked. ``base`` is the model that training began with, where it is wanted and is not ``target``
    without its adapter."""

    target: Target
    settings: SampleSettings
    base: Target | None = None

    def answer(self, prompt: str) -> Answered:
        """All that comes of one prompt; it depends on nothing that was asked before. Raises InputError for a prompt without tokens.

        Sample ``n`` is generated with the seed plus ``n - 1``, by base and tuned model alike.
        """
        if self.target.kind == "classifier":
            return Answered(prompt, classified=self._classify(prompt))
        settings = self.settings
        ids = prompt_tokens(self.target, as_asked(self.target.tokenizer, prompt, self.target.prompting)[0])
        _check(ids)
        found = []
        for number in range(settings.samples):
            sampling = sampling_of(settings.answering, settings.seed + number)
            found += [
                self._write(ids, sampling, base, number + 1) for base in (True, False) if settings.base or not base
            ]
        return Answered(prompt, tuple(found))

    def _write(self, ids: list[int], sampling: Sampling, base: bool, number: int) -> Answer:
        started = time.perf_counter()
        asked = self.base if base and self.base else self.target
        with asked.model.disable_adapter() if base and self.base is None else nullcontext():
            (answer,) = answers(asked, [ids], sampling)
        seconds = round(time.perf_counter() - started, 3)
        return Answer(base, number, answer.text, len(answer.ids), seconds, answer.ended)

    def _classify(self, text: str) -> Classified:
        started = time.perf_counter()
        tokens = tokens_of(self.target, [text])
        _check(tokens.ids[0])
        row = classified(self.target, probabilities(self.target, tokens.ids)[0].tolist())
        seconds = round(time.perf_counter() - started, 3)
        return Classified(
            str(row["prediction"]), row["probability"], row["probabilities"], row.get("positive"),
            row.get("positive_probability"), tokens.cut[0], seconds,
        )  # fmt: skip


def load_trial(
    folder: Path,
    settings: SampleSettings,
    device: torch.device,
    dtype: torch.dtype,
    *,
    name: str = "",
    base_path: str | Path | None = None,
) -> Trial:
    """The model in ``folder``, and with ``settings.base`` the one that its training began with; ``base_path`` is where that lies.

    Raises InputError as ``load_target``, and where there is no base to ask.
    """
    target = load_target(folder, name=name, base_path=base_path, device=device, dtype=dtype)
    target = told_to(target, settings.answering)
    if settings.base and target.kind == "classifier":
        raise InputError(f"{target.name}: a classifier's base has no classes, so it cannot be asked")
    if not settings.base or target.holds_base:
        return Trial(target, settings)
    if target.base is None:
        raise InputError(f"{target.name}: it began with no other model, so there is no base to try")
    base = load_target(folder, name=name, base_path=base_path, device=device, dtype=dtype, ask_base=True)
    return Trial(target, settings, told_to(base, settings.answering))


def describe(trial: Trial, folder: Path) -> Loaded:
    """Which model this is, and where it runs."""
    file, target = folder / "manifest.json", trial.target
    manifest = read_json_object(file) if file.is_file() else {}
    metrics = {name: float(value) for name, value in (manifest.get("metrics") or {}).items() if math.isfinite(value)}
    return Loaded(
        folder.name, target.kind, target.device.type, bool(target.prompting.get("chat")), target.threshold,
        manifest.get("step"), metrics,
    )  # fmt: skip


def choose_device(wanted: str, folder: Path, base: Path | None = None) -> torch.device:
    """``auto`` is CUDA where its free memory holds the model, its ``base`` too, and leaves room for a run beside it; else Metal, else the
    CPU."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        if free > WORKSPACE * (_weights(folder) + _weights(base or _base_of(folder))) + SPARE:
            return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _weights(folder: Path | None) -> int:
    """Bytes of the weights in a folder; a checkpoint's optimizer state is none."""
    files = folder.glob("*.safetensors") if folder else ()
    return sum(path.stat().st_size for path in files if path.name.startswith(("model", "adapter")))


def _base_of(folder: Path) -> Path | None:
    """The folder of the base that gpurun.json names, where it is on this machine."""
    about = folder / "gpurun.json"
    base = (read_json_object(about) if about.is_file() else {}).get("base") or {}
    if base.get("path") or not base.get("id"):
        return Path(base["path"]) if base.get("path") else None
    try:
        return Path(snapshot_download(base["id"], revision=base.get("revision"), local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None


def _check(ids: list[int]) -> None:
    if not ids:
        raise InputError("the prompt has no tokens")
