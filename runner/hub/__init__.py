"""Hugging Face, asked from this machine: who am I, may I read this model, what is in it.

What would fail on the rented box for want of access fails here first, before anything is pushed. The real client does
the talking, so ``HF_ENDPOINT``, ``HF_TOKEN``, a stored login and proxies mean here what they mean everywhere else; it
is imported inside the functions that need it.
"""

from runner.hub.access import ModelAccess, check_access, commit_of, require_access
from runner.hub.explain import HubUnreachable
from runner.hub.files import fetch_config, fetch_model
from runner.hub.login import Identity, find_token, who_am_i

__all__ = [
    "HubUnreachable",
    "Identity",
    "ModelAccess",
    "check_access",
    "commit_of",
    "fetch_config",
    "fetch_model",
    "find_token",
    "require_access",
    "who_am_i",
]
