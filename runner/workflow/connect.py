"""Reaching a box by what was typed, or by the run that is on it."""

from __future__ import annotations

import posixpath
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from remote_payload.agent.wire.paths import SAFE_PATH
from runner import store
from runner.domain import places
from runner.domain.answers.reading import Fields, Impossible, mapping_of, moment, optional, spelt
from runner.domain.errors import HostError, LinkLost, PythonMissing, UserError
from runner.domain.host import LOCAL, Host
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.local_box import embedded
from runner.transport import known_hosts
from runner.transport.known_hosts import FirstContact
from runner.transport.link import Link, open_link
from runner.transport.resolve import resolve

PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before the second and each further try
T = TypeVar("T")


def retry_on_link_loss(attempt: Callable[[], T], report: Reporter) -> T:
    """Calls ``attempt`` (it connects and does what may be done twice), again with growing pauses while the link breaks under it.

    A box that cannot be reached at all, or refuses, is not tried again. Raises the last LinkLost.
    """
    for pause in PAUSES:
        try:
            return attempt()
        except LinkLost as error:
            report.warn(f"{error.message}; trying again")
            time.sleep(pause * random.uniform(0.7, 1.3))  # the link itself cannot be awaited, only tried
    return attempt()


@contextmanager
def connect(host: Host, report: Reporter, *, strict: bool = False) -> Iterator[Link]:
    """A link to a host. At first contact its fingerprint is shown and pinned; with ``strict`` it is shown and refused."""
    with ExitStack() as stack:
        with report.stage(f"connect to {host}") as stage:
            link = stack.enter_context(open_link(host, _first_contact(report, strict)))
            stage.update(note=f"{link.rtt * 1000:.0f} ms away")
        stack.callback(remember, host)  # afterwards: writing it down takes longer than many a box takes to answer
        yield link


def install_python_if_missing(host: Host, attempt: Callable[[], T], report: Reporter) -> T:
    """Calls ``attempt``; where the box turns out to have no Python, installs one (root and apt-get there) and calls it again."""
    try:
        return attempt()
    except PythonMissing as error:
        report.warn(f"{error.message}; installing it")
    from runner.transport.python import install_python

    with report.stage("install python3 on the box"):
        install_python(host, _first_contact(report, strict=False))
    return attempt()


def may_get_python(host: Host, report: Reporter) -> None:
    """Raises BoxNotReady for a box without Python where ``install_python_if_missing`` could not install one; nothing is changed there."""
    from runner.transport.python import may_install_python

    with report.stage("look whether Python can be installed"):
        may_install_python(host, _first_contact(report, strict=False))


def _first_contact(report: Reporter, strict: bool) -> FirstContact:
    def decide(new: Host, fingerprint: str) -> None:
        if strict:
            raise HostError(
                f"{new.known_as} is new to this machine: {fingerprint}",
                meaning="Nothing was sent (--strict).",
                hint="Compare the fingerprint with your provider's console, then repeat without --strict: it is pinned from then on.",
            )
        report.note(f"first contact with {new.known_as}: {fingerprint} (pinned from now on)")

    return decide


@contextmanager
def connect_to_run(run: Run, report: Reporter) -> Iterator[Link]:
    """A link to the box that a run is on."""
    with connect(resolve_or_start_host(run.host, run.volume), report) as link:
        yield link


def resolve_or_start_host(typed: str, volume: str | None = None) -> Host:
    """The Host behind a ``--host`` text; ``local`` starts the embedded box where it does not run."""
    known = remembered().get(typed, {}).get("volume")
    volume = _usable(volume or (str(known) if known else None))
    if typed != LOCAL:
        return resolve(typed, volume)
    box = embedded()
    host = box.ensure()
    key = known_hosts.Key(*box.host_key)
    if key not in known_hosts.pinned(places.known_hosts(), host.known_as):
        known_hosts.forget(places.known_hosts(), host.known_as)
        known_hosts.pin(places.known_hosts(), host.known_as, key)
    return replace(host, volume=volume)


def _usable(volume: str | None) -> str | None:
    """The volume as every path on the box begins. Raises UserError for one that a shell there could read as something else."""
    if volume is None:
        return None
    if not volume.startswith("/") or not SAFE_PATH.fullmatch(volume):
        raise UserError(
            f"--volume {volume!r} cannot be used: it has to begin with / and hold only letters, digits and . _ - @ + /",
            hint="Name the folder on the box that is to hold .gpurun-box, such as /workspace.",
        )
    return posixpath.normpath(volume)


def remember(host: Host) -> None:
    """Notes that a host was reached, under what was typed."""
    facts = {"address": str(host), "known_as": host.known_as, "volume": host.volume, "seen_at": time.time()}
    note(host.typed, facts)


def note(typed: str, facts: dict[str, Any]) -> None:
    """Adds facts to what is remembered of a host."""

    def change(hosts: dict[str, Any]) -> None:
        before = hosts.get(typed)
        hosts[typed] = {**(before if isinstance(before, dict) else {}), **facts}

    store.update_json(places.hosts_file(), change)


def remembered() -> dict[str, dict[str, str | float | None]]:
    """What was noted of each host, by what was typed. Raises StateError for a damaged file: volumes are noted nowhere else."""
    file = places.hosts_file()
    try:
        return mapping_of(_noted)(store.load_json(file))
    except Impossible as error:
        raise store.damaged(file, error) from None


def _noted(value: object) -> dict[str, str | float | None]:
    entry = Fields(value)
    seen_at = entry("seen_at", optional(moment))
    return {"seen_at": seen_at, **{name: entry(name, optional(spelt)) for name in ("address", "known_as", "volume")}}
