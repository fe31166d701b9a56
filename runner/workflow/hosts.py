"""Known boxes: when seen, under which key, with which volume; and forgetting them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner import store
from runner.domain import places
from runner.domain.errors import UserError
from runner.domain.host import LOCAL
from runner.local_box import embedded
from runner.transport import known_hosts
from runner.workflow.connect import note, remembered, resolve_or_start_host


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
    for typed, entry in remembered().items():
        pins = known_hosts.pinned(places.known_hosts(), str(entry.get("known_as")))
        seen = entry.get("seen_at")
        found.append(
            KnownHost(
                typed=typed,
                address=str(entry.get("address") or ""),
                known_as=str(entry.get("known_as") or ""),
                volume=str(entry["volume"]) if entry.get("volume") else None,
                seen_at=seen if isinstance(seen, int | float) else None,
                fingerprints=tuple(f"{key.type} {key.fingerprint}" for key in pins),
            )
        )
    return sorted(found, key=lambda host: host.seen_at or 0.0)


def forget(name: str) -> int:
    """Unpins a host, by what was typed or by the name it is pinned under; how many keys went. Raises UserError for an unknown one."""
    hosts = remembered()
    entry = hosts.pop(name, None)
    known_as = str(entry["known_as"]) if entry else name
    if name == LOCAL:
        embedded().stop()
    removed = known_hosts.forget(places.known_hosts(), known_as)
    gone = {name, *(typed for typed, other in hosts.items() if other.get("known_as") == known_as)}

    def change(kept: dict[str, Any]) -> None:
        for typed in gone & kept.keys():
            del kept[typed]

    store.update_json(places.hosts_file(), change)
    if entry is None and not removed:
        raise UserError(f"no host {name!r} is known here", hint="gpurun hosts lists them.")
    return removed


def set_volume(name: str, volume: str) -> None:
    """From now on gpurun works below ``volume`` on that host. Raises HostError when the host cannot be resolved."""
    host = resolve_or_start_host(name, volume)
    note(name, {"address": str(host), "known_as": host.known_as, "volume": volume})
