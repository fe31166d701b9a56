"""Fills the documents about hosts and their disks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.cli.documents import hosts as documents
    from runner.domain.answers import verbs
    from runner.workflow.clean import Choice
    from runner.workflow.hosts import KnownHost, Move


def move_document(move: Move) -> documents.Moved:
    return {
        "old": move.old,
        "new": move.new,
        "runs": list(move.runs),
        "left": list(move.left),
        "keys_removed": move.keys_removed,
    }


def hosts_document(hosts: Iterable[KnownHost]) -> documents.Hosts:
    return {"hosts": [_host(host) for host in hosts]}


def _host(host: KnownHost) -> documents.Host:
    return {
        "typed": host.typed,
        "address": host.address,
        "known_as": host.known_as,
        "volume": host.volume,
        "seen_at": host.seen_at,
        "fingerprints": list(host.fingerprints),
        "destroy": list(host.destroy) or None,
        "default": host.default,
    }


def clean_document(host: str, choice: Choice, found: verbs.Cleaned, *, dry_run: bool) -> documents.Clean:
    return {
        "host": host,
        "dry_run": dry_run,
        "experiment": [
            {"run_id": each.run_id, "group": each.group, "goes": each.goes, "why": each.why} for each in choice.decided
        ],
        "removed": _on_disk(found.removed),
        "kept": _on_disk(found.kept),
        "bytes": found.bytes,
        "code_copies": len(choice.code.digests),
        "code_bytes": choice.code.bytes,
    }


def _on_disk(items: Iterable[verbs.Item]) -> list[documents.OnDisk]:
    return [{"path": item.path, "bytes": item.bytes, "why": item.why} for item in items]
