"""The hub's own client, with the address of the hub and limits on waiting."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PUBLIC_HUB = "https://huggingface.co"
TIMEOUT = 10.0  # seconds for each of: connecting, sending, waiting for an answer


def endpoint() -> str:
    """The present ``HF_ENDPOINT`` (the client reads it only when it is imported), or the public hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or PUBLIC_HUB


def api() -> HfApi:
    """The client. Each of its requests waits at most TIMEOUT."""
    from huggingface_hub import HfApi, get_session

    # whoami and auth_check have no parameter for a time limit, and by default the client waits for ever.
    get_session().timeout = TIMEOUT
    return HfApi(endpoint=endpoint(), library_name="gpurun")
