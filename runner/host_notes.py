"""What this machine noted of each host: kept in ``hosts.json``, by what was typed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from remote_payload.agent.wire.paths import IDENTITY
from runner import files
from runner.domain import places
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    list_of,
    mapping_of,
    matching,
    optional,
    otherwise,
    single_line,
    time_in_seconds,
)
from runner.domain.host import Host


@dataclass(frozen=True)
class HostNote:
    """A host as it was last resolved. ``known_as`` is the name its key is pinned under, ``seen_at`` in epoch seconds, ``box`` the identity
    of the box that answered there, ``destroy`` the command that destroys it, as its words."""

    address: str | None
    known_as: str | None
    volume: str | None
    seen_at: float | None
    box: str | None = None
    destroy: tuple[str, ...] = ()


def host_notes() -> dict[str, HostNote]:
    """The note of each host, by what was typed. Raises StateError for a damaged file: volumes are noted nowhere else."""
    file = places.hosts_file()
    try:
        return mapping_of(_note)(files.load_json(file))
    except Impossible as error:
        raise files.damaged(file, error) from None


def _note(value: object) -> HostNote:
    entry = Fields(value)
    return HostNote(
        address=entry("address", optional(single_line)),
        known_as=entry("known_as", optional(single_line)),
        volume=entry("volume", optional(single_line)),
        seen_at=entry("seen_at", optional(time_in_seconds)),
        box=entry("box", optional(matching(IDENTITY))),
        destroy=entry("destroy", otherwise((), list_of(single_line))),
    )


def note_host(host: Host, *, seen: bool, box: str = "") -> None:
    """Notes where a host is, under what was typed; with ``seen`` that it was reached just now, and as which ``box`` (its identity).

    Raises DiskTrouble, StateError.
    """
    facts = asdict(HostNote(str(host), host.known_as, host.volume, time.time(), box))
    del facts["destroy"]
    if not seen:
        del facts["seen_at"]
    if not box:  # nothing was asked of it this time
        del facts["box"]

    def change(hosts: dict[str, object]) -> None:
        found = hosts.get(host.typed)
        before = found if isinstance(found, dict) else {}
        if box and before.get("box") not in (None, "", box):
            before.pop("destroy", None)  # it would destroy the box that was at this address before
        hosts[host.typed] = {**before, **facts}

    files.update_json(places.hosts_file(), change)


def note_destroy(typed: str, command: tuple[str, ...]) -> None:
    """Notes which command destroys the box that is reached as ``typed``; for a host that was noted. Raises DiskTrouble, StateError."""

    def change(hosts: dict[str, object]) -> None:
        before = hosts.get(typed)
        hosts[typed] = {**(before if isinstance(before, dict) else {}), "destroy": list(command)}

    files.update_json(places.hosts_file(), change)


def forget_notes(typed: Iterable[str]) -> None:
    """Removes the notes of these hosts; one without a note is no error."""

    def change(hosts: dict[str, object]) -> None:
        for name in typed:
            hosts.pop(name, None)

    files.update_json(places.hosts_file(), change)
