"""Explains an exception of the hub's client to the user: one sentence, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from remote_payload.agent.wire.redact import redact
from runner.domain.errors import HostError
from runner.hub.client import endpoint

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class HubUnreachable(HostError):
    """The hub did not answer, or answered with an error of its own."""


class HttpResponse(Protocol):
    """As much of an HTTP response of the hub as is read here."""

    status_code: int

    @property
    def headers(self) -> Mapping[str, str]: ...


def explain(error: Exception, model: str, revision: str | None, token: str | None) -> tuple[bool | None, str, str]:
    """Whether the model can be read (False, or None where the hub did not tell), the problem, and a hint.

    Raises ``error`` itself when neither the hub nor the network is its cause.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return False, f"{model!r} is not a model's name", "write it as owner/name, or name a folder that exists"
    page = f"{endpoint()}/{model}"
    answer = hub_answer(error)
    if answer is None or answer.status_code not in (401, 403, 404):
        return None, trouble(error, token), "check the network, or HF_ENDPOINT"
    code = answer.headers.get("X-Error-Code")
    if code == "GatedRepo":
        whose = "this account has no access to it" if token else "nobody is logged in on this machine"
        then = "" if token else f", then {LOG_IN}"
        return False, f"{model} is gated, and {whose}", f"ask for access at {page}{then}"
    if code == "RevisionNotFound":
        return False, f"{model} has no revision {revision!r}", f"see {page}/commits/main"
    if code == "EntryNotFound":
        return False, f"{model} has no config.json", f"see {page}/tree/main"
    if answer.headers.get("X-Error-Message") == "Access to this resource is disabled.":
        return False, f"{model} was disabled by the hub", f"see {page}"
    if answer.status_code == 403:
        return (
            False,
            f"the token of this machine may not read {model}",
            f"widen its permissions; see {page}",
        )
    # The hub answers alike for a missing model and a private one, with 401 to those who are not logged in.
    private = "" if token else f"; if it is private, {LOG_IN}"
    return False, f"no such model, or a private one: {model}", f"check the name at {page}{private}"


def hub_answer(error: BaseException) -> HttpResponse | None:
    """The HTTP response in a chain of exceptions (snapshot_download wraps it), None where there is none."""
    from huggingface_hub.errors import HfHubHTTPError

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, HfHubHTTPError):
            response: HttpResponse = link.response
            return response
        link = link.__cause__ or link.__context__
    return None


def trouble(error: Exception, token: str | None) -> str:
    """One line about a hub that could not be asked. Raises ``error`` itself when the network is not its cause."""
    from huggingface_hub import errors

    answer = hub_answer(error)
    if answer is not None:
        return f"{endpoint()} answered with status {answer.status_code}"
    if not isinstance(error, (OSError, getattr(errors, "HTTPError", OSError))):  # httpx's base class, or httpx2's
        raise error
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redact(f"{endpoint()} cannot be reached ({lines[0]})", [token] if token else [])
