"""The architecture of the model that a job trains, from its config.json: of a folder of the job, or from the hub (that file alone)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from remote_payload.settings import RECIPES
from runner.domain.errors import GpurunError
from runner.domain.job import Job, Settings
from runner.domain.sweep import expand

if TYPE_CHECKING:
    from remote_payload.forecast.architecture import Architecture

# By key of a run's model (``key_of``): its architecture, or why it is not known.
Models = Mapping[str, "Architecture | str"]


def runs_with_forecast(jobs: Sequence[Job]) -> list[Job]:
    """The runs of these jobs, those of sweeps too, whose memory is forecast: not of commands and own recipes, nor of runs on the CPU or
    that train nothing."""
    forecast = [job for job in jobs if job.recipe in RECIPES and job.resources.gpus != 0]
    return [_one_of(job, run.name, run.overrides) for job in forecast for run in expand(job.name, job.sweep or {})]


def _one_of(job: Job, name: str, overrides: Settings) -> Job:
    """A run of a sweep, as far as its settings go."""
    settings = copy.deepcopy(job.settings)
    for path, value in overrides.items():
        *groups, last = path.split(".")
        if groups and groups[0] == "settings":
            group = settings
            for each in groups[1:]:
                group = group.setdefault(each, {})
            group[last] = value
    return replace(job, name=name, settings=settings, sweep=None).at(job.folder, job.file, job.overrides)


def read_models(runs: Sequence[Job]) -> Models:
    """The models of these runs, each looked at once."""
    found: dict[str, Architecture | str] = {}
    for run in runs:
        if key_of(run) not in found:
            found[key_of(run)] = _read(run)
    return found


def key_of(job: Job) -> str:
    """The same for jobs that train the same model."""
    settings = job.settings
    shape = [settings.get("vocabulary"), settings.get("max_length")] if job.recipe == "pretrain" else []
    return json.dumps([str(job.folder), settings.get("model"), settings.get("revision"), *shape])


def _read(job: Job) -> Architecture | str:
    from remote_payload.forecast.architecture import Architecture

    try:
        return Architecture.from_config(_config(job))
    except GpurunError as error:
        return error.message
    except (ValueError, KeyError, TypeError, OSError) as error:
        return str(error)


def _config(job: Job) -> Mapping[str, object]:
    """The model's ``config.json``; for a model built from scratch what it will say."""
    if job.recipe == "pretrain":
        shape = job.settings["model"]
        widths = {"n_layer": shape["layers"], "n_embd": shape["width"], "n_head": shape["heads"]}
        tokens = {"vocab_size": job.settings["vocabulary"], "n_positions": job.settings["max_length"]}
        return {"model_type": "gpt2", "activation_function": "gelu_pytorch_tanh", **widths, **tokens}
    model = job.settings.get("model")
    if not isinstance(model, str):
        raise ValueError("the recipe builds its own model")
    local = job.folder / model / "config.json"
    if local.is_file():
        config = json.loads(local.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{local} is not a JSON object")
        return config
    from runner import hub

    return hub.fetch_config(model, job.settings.get("revision"))
