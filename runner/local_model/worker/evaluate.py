"""``gpurun evaluate`` on this machine: the recipe of the same name, as it runs on a box."""

from __future__ import annotations

import importlib

import transformers

from remote_payload.recipes.evaluate import evaluate
from remote_payload.settings.evaluate import EvaluateSettings
from remote_payload.settings.reading import read_settings
from runner.local_model.messages import Evaluated, EvaluateRequest, Progress, Send

METRICS = ("sacrebleu", "rouge_score")  # imported before anything is measured: missing ones would be found after hours


def measure(request: EvaluateRequest, send: Send) -> Evaluated:
    """Measures the models of the request. Raises InputError, and ImportError where a library of the metrics is missing."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in METRICS:
        importlib.import_module(name)
    settings: EvaluateSettings = read_settings(EvaluateSettings, request.settings)
    found = evaluate(settings, request.outputs, lambda text: send(Progress(note=text)))
    return Evaluated(len(found.columns))
