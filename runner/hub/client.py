"""The hub's own client, told where the hub is and how long to wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PUBLIC_HUB = "https://huggingface.co"
TIMEOUT = 10.0  # seconds for each of: connecting, sending, waiting for an answer


def endpoint() -> str:
    """``HF_ENDPOINT`` as it is now (the client only remembers what it was when it was imported), or the public hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or PUBLIC_HUB


def api() -> HfApi:
    """The client, with bounded waiting."""
    from huggingface_hub import HfApi, get_session

    # whoami and auth_check take no time-out, and the client's own default is to wait for ever.
    get_session().timeout = TIMEOUT
    return HfApi(endpoint=endpoint(), library_name="gpurun")
