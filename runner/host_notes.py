"""What this machine noted of each host: kept in ``hosts.json``, by what was typed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from remote_payload.agent.wire.paths import IDENTITY
from runner import files
from runner.domain import places
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    boolean,
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
    of the box that answered there, ``destroy`` the command that destroys it, as its words; ``provider`` and ``instance`` what the box said
    of itself. ``default``: it is meant where no host is named.

    ``volume`` is the folder that holds the root (HOME for the home folder): chosen at the first contact or told with ``--volume``, and
    then kept. None until gpurun has worked there.
    """

    address: str | None
    known_as: str | None
    volume: str | None
    seen_at: float | None
    box: str | None = None
    destroy: tuple[str, ...] = ()
    provider: str | None = None
    instance: str | None = None
    default: bool = False


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
        provider=entry("provider", optional(single_line)),
        instance=entry("instance", optional(single_line)),
        default=entry("default", otherwise(False, boolean)),
    )


def note_reached(host: Host, box: str, volume: str | None) -> None:
    """Notes that a host was reached just now, as which ``box`` (its identity, "" if nothing was asked of it), and the volume that gpurun
    works in there, unless one is noted already. Raises DiskTrouble, StateError.
    """
    facts = {"address": str(host), "known_as": host.known_as, "seen_at": time.time(), **({"box": box} if box else {})}

    def change(before: dict[str, object]) -> dict[str, object]:
        if box and before.get("box") not in (None, "", box):
            for name in ("destroy", "provider", "instance"):  # of the box that was at this address before
                before.pop(name, None)
        return {**before, **facts, "volume": before.get("volume") or volume}

    _change(host.typed, change)


def note_volume(host: Host, volume: str) -> None:
    """Notes the folder that gpurun shall work in on this host from now on. Raises DiskTrouble, StateError."""
    facts = {"address": str(host), "known_as": host.known_as, "volume": volume}
    _change(host.typed, lambda before: {**before, **facts})


def note_destroy(host: Host, command: tuple[str, ...]) -> None:
    """Notes which command destroys the box that is reached as ``host``. Raises DiskTrouble, StateError."""
    facts = {"address": str(host), "known_as": host.known_as, "destroy": list(command)}
    _change(host.typed, lambda before: {**before, **facts})


def note_instance(host: Host, provider: str, instance: str) -> None:
    """Notes what a box said of itself: its provider, and the provider's name for it. Raises DiskTrouble, StateError."""
    facts = {"address": str(host), "known_as": host.known_as, "provider": provider, "instance": instance}
    _change(host.typed, lambda before: {**before, **facts})


def default_host() -> str | None:
    """The host that is meant where none is named, as typed; None where there is none."""
    return next((typed for typed, note in host_notes().items() if note.default), None)


def note_default(typed: str | None) -> None:
    """Notes which host is meant from now on where none is named; None: no host. Raises DiskTrouble, StateError."""

    def change(hosts: dict[str, object]) -> None:
        for note in hosts.values():
            if isinstance(note, dict):
                note.pop("default", None)
        if typed is not None:
            before = hosts.get(typed)
            hosts[typed] = {**(before if isinstance(before, dict) else {}), "default": True}

    files.update_json(places.hosts_file(), change)


def _change(typed: str, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    def change_one(hosts: dict[str, object]) -> None:
        before = hosts.get(typed)
        hosts[typed] = change(before if isinstance(before, dict) else {})

    files.update_json(places.hosts_file(), change_one)


def forget_notes(typed: Iterable[str]) -> None:
    """Removes the notes of these hosts; one without a note is no error."""

    def change(hosts: dict[str, object]) -> None:
        for name in typed:
            hosts.pop(name, None)

    files.update_json(places.hosts_file(), change)
