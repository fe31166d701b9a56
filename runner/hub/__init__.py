"""Asks Hugging Face from this machine: whose token this is, which models it may read, and for their files.

A model that the rented box could not read is found here first, before anything is pushed. huggingface_hub makes the requests, so
``HF_ENDPOINT``, ``HF_TOKEN``, a stored login and proxies mean what they mean everywhere; it is imported inside the functions that
need it.
"""

from runner.hub.access import ModelAccess, check_access, commit_of, require_access
from runner.hub.explain import HubUnreachable
from runner.hub.files import fetch_config, fetch_model
from runner.hub.login import Identity, find_token, who_am_i, write_identity

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
    "write_identity",
]
