"""What boxes tell of the network between them (the verb ``reach``), each answer checked as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runner.domain.answers.reading import (
    Fields,
    list_of,
    mapping_of,
    matching,
    number_between,
    optional,
    text,
    time_in_seconds,
    whole_between,
)

MAX_INTERFACES = 256
_ADDRESS = matching(re.compile(r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"))
_NAME = matching(re.compile(r"[A-Za-z0-9._@:-]{1,15}"))  # the kernel allows 15 bytes
_PORT = whole_between(1, 65535)


@dataclass(frozen=True)
class Interface:
    """A network interface of a box and its address."""

    name: str
    address: str


@dataclass(frozen=True)
class Listening:
    """Where a box can be reached by the others; ``cluster`` are variables of a provider that sells boxes together."""

    ports: tuple[int, ...]
    interfaces: tuple[Interface, ...]
    cluster: dict[str, str]


def read_listening(notice: Fields) -> Listening:
    """Raises Impossible."""
    return Listening(
        ports=notice("ports", list_of(_PORT, 16)),
        interfaces=notice("interfaces", list_of(_interface, MAX_INTERFACES)),
        cluster=notice("cluster", mapping_of(text, 16)),
    )


def _interface(value: object) -> Interface:
    fields = Fields(value)
    return Interface(fields("name", _NAME), fields("address", _ADDRESS))


@dataclass(frozen=True)
class Reached:
    """How a connection of one box to another's address went: ``error`` says why there is none. ``latency`` in seconds there and
    back, ``rate`` in bytes a second."""

    address: str
    error: str | None
    latency: float | None
    rate: float | None


def read_reached(answer: Fields) -> tuple[Reached, ...]:
    """Raises Impossible."""
    return answer("reached", list_of(_reached, MAX_INTERFACES * 64))


def _reached(value: object) -> Reached:
    fields = Fields(value)
    return Reached(
        address=fields("address", _ADDRESS),
        error=fields("error", optional(text)),
        latency=fields("latency", optional(time_in_seconds)),
        rate=fields("rate", optional(number_between(0, 1e15))),
    )
