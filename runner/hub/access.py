"""Asks the hub whether this machine's token may read the models that a job names."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.domain.errors import HostError, HubAccessDenied
from runner.domain.progress import Reporter
from runner.hub.client import TIMEOUT, api
from runner.hub.explain import HubUnreachable, explain
from runner.hub.login import Identity, find_token, refuse_write_token, who_am_i

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONCURRENT = 8


@dataclass(frozen=True)
class ModelAccess:
    """The hub's answer for one model: ``readable`` is None where it gave none; ``problem`` and ``hint`` explain a False or None."""

    id: str
    revision: str | None
    readable: bool | None
    commit: str | None = None
    gated: bool = False
    problem: str = ""
    hint: str = ""


def check_access(models: Sequence[tuple[str, str | None]], *, token: str | None) -> list[ModelAccess]:
    """For each ``(id, revision)``: whether ``token`` may read it, and its commit. Asked all at once; a refusal is no exception."""
    client = api()
    with ThreadPoolExecutor(max_workers=CONCURRENT) as pool:
        return list(pool.map(lambda model: _check(client, model[0], model[1], token), models))


def require_access(
    models: Sequence[tuple[str, str | None]],
    reporter: Reporter,
    *,
    allow_write_token: bool = False,
    strict: bool = False,
) -> tuple[Identity | None, list[ModelAccess]]:
    """Checks before a push that the token may be lent to a box and that it can read every model; gives both.

    Raises HubAccessDenied for a refused or write-scoped token, and for models that cannot be read (all in one message).
    A hub that cannot be reached is a warning, since the box may reach it; with ``strict`` it raises HubUnreachable.
    """
    try:
        identity = who_am_i()
    except HubUnreachable as error:
        if strict:
            raise
        named = ", ".join(model for model, _ in models) or "it"
        reporter.warn(f"{error.message}: access to {named} was not checked, and an unchecked token is not sent.")
        return None, [ModelAccess(*model, readable=None, problem=error.message) for model in models]
    if identity and not allow_write_token:
        refuse_write_token(identity)
    answers = check_access(models, token=identity.token if identity else None)
    raise_refusals(answers, strict=strict)
    for answer in answers:
        if answer.readable is None:
            reporter.warn(f"{answer.problem}: access to {answer.id} was not checked.")
    return identity, answers


def commit_of(model: str, revision: str | None = None) -> str:
    """The present commit of a branch or tag of ``model``. Raises HubAccessDenied or HubUnreachable."""
    answers = check_access([(model, revision)], token=find_token())
    raise_refusals(answers, strict=True)
    if not answers[0].commit:
        raise HubUnreachable(f"the hub names no commit for {model}")
    return answers[0].commit


def raise_refusals(answers: Sequence[ModelAccess], *, strict: bool) -> None:
    """Raises HubAccessDenied naming every refused model; with ``strict`` HubUnreachable for those without an answer."""
    refused = [answer for answer in answers if answer.readable is False]
    unknown = [answer for answer in answers if answer.readable is None]
    if refused:
        raise as_error(refused)
    if unknown and strict:
        raise as_error(unknown)


def as_error(answers: Sequence[ModelAccess]) -> HostError:
    """One error for one or more models that cannot be read."""
    message = "\n".join(answer.problem for answer in answers)
    hint = "; ".join(dict.fromkeys(answer.hint for answer in answers if answer.hint))
    if answers[0].readable is None:
        return HubUnreachable(message, hint=hint, retryable=True)
    return HubAccessDenied(message, meaning="Nothing was pushed.", hint=hint)


def _check(client: HfApi, model: str, revision: str | None, token: str | None) -> ModelAccess:
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(model)  # auth_check does not
        client.auth_check(model, token=token or False)
        info = client.model_info(model, revision=revision, timeout=TIMEOUT, token=token or False)
    except Exception as error:
        return refusal(error, model, revision, token)
    return ModelAccess(model, revision, True, commit=info.sha, gated=bool(info.gated))


def refusal(error: Exception, model: str, revision: str | None, token: str | None) -> ModelAccess:
    """An exception of the client as the hub's answer for ``model``."""
    readable, problem, hint = explain(error, model, revision, token)
    return ModelAccess(model, revision, readable, problem=problem, hint=hint)
