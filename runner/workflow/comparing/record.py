"""What the fetched ``training_metadata.json`` of a run tells. It was written on a box: what is not as it should be is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.domain.answers.reading import LARGEST
from runner.domain.answers.results import Evaluation
from runner.domain.comparison.trees import File
from runner.domain.quantities import format_size
from runner.domain.terminal import clean
from runner.files import read_json

MOST = 256  # of one kind
FILE = "training_metadata.json"


class TrainingRecord:
    """The record in a folder of fetched outputs; empty where there is none."""

    def __init__(self, outputs: Path) -> None:
        self._value: Mapping[str, object] = read_json(outputs / FILE)
        self.found = bool(self._value)

    @property
    def environment(self) -> dict[str, object]:
        """Versions, base model and machine, by name."""
        code, base, machine = self._part("code"), self._part("base_model"), self._part("hardware")
        found: dict[str, object] = dict(list(_plain(self._part("libraries")).items())[:MOST])
        found["gpurun_training_code"] = _short(code.get("payload_sha256"))
        found |= {"base_model": _text(base.get("id")), "base_model_revision": _text(base.get("revision"))}
        found["gpus"] = _gpus(machine.get("gpus"))
        for name in ("driver", "platform", "processor", "cpus", "memory_bytes", "devices_used"):
            found[name] = _scalar(machine.get(name))
        return {name: value for name, value in found.items() if value is not None}

    @property
    def course(self) -> dict[str, object]:
        """How the training went: tokens, speed, the loss at its ends, peak memory in bytes."""
        training, memory = self._part("training"), self._part("memory")
        names = ("tokens", "tokens_per_second", "samples_per_second", "mfu", "first_loss", "last_loss")
        found = {name: _scalar(training.get(name)) for name in names}
        found["peak_memory_bytes"] = _scalar(memory.get("measured_peak_bytes"))
        return {name: value for name, value in found.items() if value is not None}

    @property
    def data_files(self) -> dict[str, File] | None:
        """The files that were read, by path; None where the record does not say them."""
        listed = self._value.get("data")
        files = dict(filter(None, map(_file, listed if isinstance(listed, list) else [])))
        return files or None

    @property
    def last_evaluation(self) -> Evaluation | None:
        """The last evaluation of the training, under the name that its event had."""
        results = self._value.get("results")
        last = results.get("last") if isinstance(results, dict) else None
        if not isinstance(last, dict):
            return None
        metrics, step = last.get("metrics"), last.get("step")
        named = _plain(metrics if isinstance(metrics, dict) else {})
        numbers = {name: float(value) for name, value in named.items() if isinstance(value, int | float)}
        return Evaluation("validation", step if type(step) is int else None, numbers) if numbers else None

    def _part(self, name: str) -> Mapping[str, object]:
        part = self._value.get(name)
        return part if isinstance(part, dict) else {}


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    return {clean(name, 100): _scalar(value) for name, value in values.items()}


def _scalar(value: object) -> object:
    """A number that can be reckoned with, a truth or a short text; None for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if -LARGEST < value < LARGEST else None
    return _text(value)


def _size(value: object) -> int | None:
    """A number of bytes."""
    return value if type(value) is int and 0 <= value < LARGEST else None


def _text(value: object) -> str | None:
    return clean(value, 200) if isinstance(value, str) else None


def _short(value: object) -> str | None:
    return clean(value, 16) if isinstance(value, str) else None


def _gpus(value: object) -> str | None:
    """``2 × NVIDIA H200 (150.8 GB)``, the kinds in their order."""
    if not isinstance(value, list):
        return None
    names = [_gpu(gpu) for gpu in value[:MOST] if isinstance(gpu, dict)]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names)) or "none"


def _gpu(gpu: Mapping[str, object]) -> str:
    return f"{clean(gpu.get('name'), 80)} ({format_size(_size(gpu.get('memory_bytes')))})"


def _file(entry: object) -> tuple[str, File] | None:
    """An entry about a file that was read; None for one about something else."""
    fields = entry if isinstance(entry, dict) else {}
    path, content, size = _text(fields.get("path")), _text(fields.get("sha256")), _size(fields.get("bytes"))
    return (path, File(size, content)) if path and content and size is not None else None
