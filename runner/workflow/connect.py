"""Connecting to a box, by what was typed or by the run that is on it. The commands connect; every step of theirs is given a Link."""

from __future__ import annotations

import posixpath
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from remote_payload.agent.wire.paths import SAFE_PATH
from runner.domain import places
from runner.domain.errors import HostError, LinkLost, PythonMissing, UserError
from runner.domain.host import HOME, LOCAL, Host
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.host_notes import host_notes, note_reached
from runner.local_box import embedded
from runner.transport.resolve import resolve

if TYPE_CHECKING:  # loaded when a connection is opened: a run that is over is shown without one
    from runner.transport.known_hosts import FirstContact
    from runner.transport.link import Link

PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before the second and each further try


@contextmanager
def connect(host: Host, report: Reporter, *, strict: bool = False) -> Iterator[Link]:
    """A link to a host. At first contact its fingerprint is shown and pinned; with ``strict`` it is shown and refused."""
    from runner.transport.link import open_link

    with ExitStack() as stack:
        with report.stage(f"connect to {host}") as stage:
            link = stack.enter_context(open_link(host, _first_contact(report, strict)))
            stage.update(note=f"{link.rtt * 1000:.0f} ms away")
        # Noted afterwards: writing it down takes longer than many a box takes to answer.
        stack.callback(lambda: note_reached(host, link.agent.identity, link.agent.volume))
        yield link


class ReconnectingLink:
    """A link to one host that is opened again where it breaks, for work that may be repeated:

        with ReconnectingLink(host, report) as connection:
            while work_is_left:
                with connection.link() as link:
                    ...  # where the link breaks here, this block ends without an error

    Between two such blocks the link stays open. There are five tries in all, with growing pauses. A host that cannot be reached
    at all, or refuses, is not tried again. With ``install_python`` a box that has no Python gets one (root and apt-get there).
    """

    def __init__(self, host: Host, report: Reporter, *, strict: bool = False, install_python: bool = False) -> None:
        self._host, self._report, self._strict = host, report, strict
        self._may_install_python = install_python
        self._pauses = iter(PAUSES)
        self._stack = ExitStack()
        self._link: Link | None = None
        self._closed = False

    def __enter__(self) -> ReconnectingLink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed = True  # a thread that works with the link does not open another one
        self._stack.close()

    @contextmanager
    def link(self) -> Iterator[Link]:
        """The link, opened if it is not. Raises the HostError that another try does not mend, or the last LinkLost."""
        while self._link is None:
            try:
                self._link = self._stack.enter_context(connect(self._host, self._report, strict=self._strict))
            except HostError as error:
                self._recover(error)
        try:
            yield self._link
        except HostError as error:
            self._recover(error)
            self._link = None

    def _recover(self, error: HostError) -> None:
        """Does what lets another try succeed: waits, or installs Python. Raises ``error`` where there is no such thing."""
        self._stack.close()
        if self._closed:
            raise error
        pause = next(self._pauses, None) if isinstance(error, LinkLost) else None
        if pause is not None:
            self._report.warn(f"{error.message}; trying again")
            time.sleep(pause * random.uniform(0.7, 1.3))  # the link itself cannot be awaited, only tried
        elif isinstance(error, PythonMissing) and self._may_install_python:
            self._may_install_python = False
            self._report.warn(f"{error.message}; installing it")
            _install_python(self._host, self._report)
            self._pauses = iter(PAUSES)
        else:
            raise error


def _install_python(host: Host, report: Reporter) -> None:
    from runner.transport.install_python import install_python

    with report.stage("install python3 on the box"):
        install_python(host, _first_contact(report, strict=False))


def fail_if_python_cannot_be_installed(host: Host, report: Reporter) -> None:
    """Raises BoxNotReady for a box without Python that ``gpurun submit`` could not install one on; nothing is changed there."""
    from runner.transport.install_python import may_install_python

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
    with connect(host_of(run), report) as link:
        yield link


def host_of(run: Run) -> Host:
    """The host that a run is on, resolved again: addresses change."""
    return resolve_or_start_host(run.host, run.volume)


def resolve_or_start_host(typed: str, volume: str | None = None) -> Host:
    """The Host behind a ``--host`` text; ``local`` starts the embedded box where it does not run.

    ``volume`` is the folder there that holds the root. Without it the one that is noted is taken; without that the box chooses.
    """
    noted = host_notes().get(typed)
    volume = _usable(volume or (noted.volume if noted else None))
    if typed != LOCAL:
        return resolve(typed, volume)
    from runner.transport import known_hosts

    box = embedded()
    host = box.ensure()
    key = known_hosts.Key(*box.host_key)
    if key not in known_hosts.pinned(places.known_hosts(), host.known_as):
        known_hosts.forget(places.known_hosts(), host.known_as)
        known_hosts.pin(places.known_hosts(), host.known_as, key)
    return replace(host, volume=volume or host.volume)


def _usable(volume: str | None) -> str | None:
    """The volume as every path on the box begins. Raises UserError for one that a shell there could read as something else."""
    if volume is None or volume == HOME:
        return volume
    if not volume.startswith("/") or not SAFE_PATH.fullmatch(volume):
        raise UserError(
            f"--volume {volume!r} cannot be used: it has to begin with / and hold only letters, digits and . _ - @ + /",
            hint="Name the folder on the box that is to hold .gpurun-box, such as /workspace.",
        )
    return posixpath.normpath(volume)
