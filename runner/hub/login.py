"""The token of this machine: whose it is, and whether it may write."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from remote_payload.settings.training import WRITE_TOKEN
from runner.domain.errors import HostError, HubAccessDenied, StateError
from runner.hub.client import api
from runner.hub.explain import HubUnreachable, hub_answer, trouble

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
WRITE_TOKEN_PLACE = f"the token for publishing ({WRITE_TOKEN}, or typed)"


@dataclass(frozen=True)
class Identity:
    """Whose token this is; ``role`` is ``read``, ``write``, ``fineGrained``, or ``login`` where the hub names no role."""

    name: str
    role: str
    can_write: bool
    token: str = field(repr=False)


def find_token() -> str | None:
    """``HF_TOKEN``, or what ``hf auth login`` stored (a browser login near its end is renewed); None without either."""
    from huggingface_hub import constants, get_token

    try:
        return get_token()
    except (OSError, ValueError) as error:
        raise StateError(
            f"the Hugging Face token stored on this machine cannot be read: {constants.HF_TOKEN_PATH} ({type(error).__name__})",
            meaning="Nothing was pushed.",
            hint="Type `hf auth login --force`, or set HF_TOKEN.",
        ) from None


def who_am_i() -> Identity | None:
    """Whose token this is and whether it may write; None without a token.

    Raises HubAccessDenied for a token that the hub refuses, HubUnreachable when it cannot be asked.
    """
    token = find_token()
    where = "the token in HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token that `hf auth login` stored"
    return None if token is None else identify(token, where)


def identify(token: str, where: str) -> Identity:
    """Whose token this is; ``where`` says in an error where it comes from. Raises as ``who_am_i``."""
    try:
        answer = api().whoami(token=token)
    except Exception as error:
        raise _refused_or_unreachable(error, token, where) from None
    role = _inside(answer, "auth", "accessToken", "role")
    role = role if isinstance(role, str) else "login"
    return Identity(str(_inside(answer, "name") or "?"), role, _can_write(answer, role), token)


def write_identity(typed: Callable[[], str | None]) -> Identity:
    """The account that publishes, with a token that may write: from HF_PUBLISH_TOKEN, else this machine's login where that may write, else
    what ``typed`` gives. The token is kept nowhere.

    Raises HubAccessDenied without one, or for one that may only read; HubUnreachable.
    """
    given = os.environ.get(WRITE_TOKEN, "").strip()
    if not given:
        login = who_am_i()
        if login is not None and login.can_write:
            return login
        given = (typed() or "").strip()
    if not given:
        raise HubAccessDenied(
            "publishing needs a token that may write, and this machine has none",
            meaning="Nothing was published.",
            hint=f"Make one for the repository at {TOKENS_PAGE} and set {WRITE_TOKEN} to it; it is used for this and kept nowhere.",
        )
    found = identify(given, WRITE_TOKEN_PLACE)
    if not found.can_write:
        raise HubAccessDenied(
            f"{WRITE_TOKEN_PLACE} may only read",
            meaning="Nothing was published.",
            hint=f"Make one that may write to the repository at {TOKENS_PAGE}.",
        )
    return found


def refuse_write_token(identity: Identity) -> None:
    """Raises HubAccessDenied for a token that could change something on the hub."""
    if not identity.can_write:
        return
    kind = {"write": "has the role `write`", "fineGrained": "has permissions to write"}.get(
        identity.role, "comes from a browser login, whose scope the hub does not tell and which as a rule may write"
    )
    raise HubAccessDenied(
        f"the Hugging Face token of {identity.name} {kind}: "
        "whoever owns the rented box could change your repositories with it",
        meaning="Nothing was pushed.",
        hint=f"Make a token with the role `read` at {TOKENS_PAGE} and set HF_TOKEN to it; "
        f"a run that publishes gets a token of its own with `secrets: [{WRITE_TOKEN}]`. To lend this one all the same, "
        "say `hub: {allow_write_token: true}` in the job file.",
    )


def _can_write(answer: object, role: str) -> bool:
    """Whether the token may change something on the hub. One whose permissions the hub does not tell counts as able to."""
    if role != "fineGrained":
        return role != "read"
    granted = _inside(answer, "auth", "accessToken", "fineGrained")
    permissions = _items(_inside(granted, "global"))
    for scope in _items(_inside(granted, "scoped")):
        permissions += _items(_inside(scope, "permissions"))
    return any(str(permission).endswith((".write", ".admin")) for permission in permissions)


def _inside(value: object, *names: str) -> object:
    """The value under these names, one inside the other; None where one of them is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _refused_or_unreachable(error: Exception, token: str, where: str) -> HostError:
    answer = hub_answer(error)
    if answer is None or answer.status_code not in (401, 403):
        return HubUnreachable(trouble(error, token), hint="check the network, or HF_ENDPOINT", retryable=True)
    return HubAccessDenied(
        f"{where} is refused by the hub: it is wrong, expired or revoked",
        meaning="Nothing was pushed.",
        hint="Type `hf auth login --force`, or set HF_TOKEN to a token with the role `read`."
        if where != WRITE_TOKEN_PLACE
        else f"Make another at {TOKENS_PAGE}.",
    )
