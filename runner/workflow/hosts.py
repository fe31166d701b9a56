"""``gpurun hosts``: the hosts that were reached, when, with which key and volume; and forgetting one."""

from __future__ import annotations

from dataclasses import dataclass

from runner.domain import places
from runner.domain.errors import UserError
from runner.domain.host import LOCAL
from runner.host_notes import forget_notes, host_notes, note_host
from runner.local_box import embedded
from runner.transport import known_hosts
from runner.workflow.connect import resolve_or_start_host


@dataclass(frozen=True)
class KnownHost:
    typed: str
    address: str
    known_as: str
    volume: str | None
    seen_at: float | None
    fingerprints: tuple[str, ...]


def known() -> list[KnownHost]:
    """Every host that was reached, the latest last."""
    found = []
    for typed, note in host_notes().items():
        pins = known_hosts.pinned(places.known_hosts(), note.known_as or "")
        fingerprints = tuple(f"{key.type} {key.fingerprint}" for key in pins)
        address, known_as = note.address or "", note.known_as or ""
        found.append(KnownHost(typed, address, known_as, note.volume or None, note.seen_at, fingerprints))
    return sorted(found, key=lambda host: host.seen_at or 0.0)


def forget(name: str) -> int:
    """Unpins a host, by what was typed or by the name it is pinned under; how many keys went. Raises UserError for an unknown one."""
    notes = host_notes()
    note = notes.pop(name, None)
    known_as = note.known_as or "" if note else name
    if name == LOCAL:
        embedded().stop()
    removed = known_hosts.forget(places.known_hosts(), known_as)
    forget_notes({name, *(typed for typed, other in notes.items() if other.known_as == known_as)})
    if note is None and not removed:
        raise UserError(f"no host {name!r} is known here", hint="gpurun hosts lists them.")
    return removed


def set_volume(name: str, volume: str) -> None:
    """From now on gpurun works below ``volume`` on that host. Raises HostError when the host cannot be resolved."""
    note_host(resolve_or_start_host(name, volume), seen=False)
