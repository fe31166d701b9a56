"""Files of a model on the hub, brought into this machine's cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from runner.domain.progress import Stage
from runner.hub.access import as_error, commit_of, refusal
from runner.hub.client import TIMEOUT, api, endpoint
from runner.hub.explain import HubUnreachable
from runner.hub.login import find_token

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm

MAX_CONFIG = 4 * 1024 * 1024
# The files that are needed to load a model, and none that could run code: no scripts, no pickles, one copy of the weights.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
UNWANTED = ["onnx/*", "openvino/*", "original/*"]


def fetch_config(model: str, revision: str | None = None) -> dict[str, object]:
    """``config.json`` of a model. Raises HubAccessDenied, or HubUnreachable (also for a file that holds no JSON object)."""
    from huggingface_hub import hf_hub_download

    token = find_token()
    # With a commit the file may come from the cache without a request; and a hub that is down is noticed here, before
    # hf_hub_download tries it for twenty seconds.
    commit = commit_of(model, revision)
    try:
        path = hf_hub_download(
            model, "config.json", revision=commit, token=token or False, endpoint=endpoint(), etag_timeout=TIMEOUT
        )
    except Exception as error:
        raise as_error([refusal(error, model, revision, token)]) from None
    with open(path, "rb") as file:
        raw = file.read(MAX_CONFIG + 1)
    try:
        config = json.loads(raw) if len(raw) <= MAX_CONFIG else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise HubUnreachable(f"config.json of {model} is not a configuration", hint=f"see {endpoint()}/{model}")
    return config


def fetch_model(model: str, revision: str | None, stage: Stage) -> Path:
    """A model's folder in this machine's cache: safetensors, configuration, tokenizer. Missing files are downloaded.

    A broken download goes on where it stopped; ``stage`` shows the bytes. Raises HubAccessDenied or HubUnreachable.
    """
    from huggingface_hub import snapshot_download

    api()
    token = find_token()
    try:
        folder = snapshot_download(
            model,
            revision=revision,
            token=token or False,
            endpoint=endpoint(),
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            etag_timeout=TIMEOUT,
            tqdm_class=_bar_into(stage),
        )
    except Exception as error:
        raise as_error([refusal(error, model, revision, token)]) from None
    return Path(folder)


def _bar_into(stage: Stage) -> type[tqdm]:
    """A progress bar class for the hub's client that draws nothing and reports bytes to ``stage``."""
    from huggingface_hub.utils.tqdm import tqdm

    most = 0.0

    class Bar(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.in_bytes = kwargs.get("unit") == "B"
            self.bytes = 0.0
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            nonlocal most
            self.bytes += n or 0
            # The client has two bars of bytes, one for the network and one for the disk; the one that is ahead is shown.
            if self.in_bytes and self.bytes > most:
                most = self.bytes
                stage.update(done=most, total=self.total or None)

    return Bar
