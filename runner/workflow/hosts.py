"""``gpurun hosts``: the hosts that were reached, when, with which key and volume; forgetting one; and a box whose address has changed.

Of a box with another address its runs are asked for there and recognised, and their records follow. A run is recognised by its own
folder, and the box by the number that gpurun keeps beside the runs (``Run.box``). Where the new address is another box, nothing changes.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from remote_payload.agent.wire.redact import redact
from runner import store
from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.errors import HostError, RunLost, UserError
from runner.domain.host import LOCAL, Host
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.host_notes import HostNote, forget_notes, host_notes, note_default, note_destroy, note_volume
from runner.local_box import embedded
from runner.transport import known_hosts
from runner.transport.link import Link
from runner.transport.resolve import resolve
from runner.workflow.connect import connect, resolve_or_start_host
from runner.workflow.observing.follow import remember_status
from runner.workflow.observing.status import NOT_THERE

# Options and headers whose value is a key: --api-key KEY, "Authorization: Bearer KEY".
_KEY_OPTION = re.compile(r"api[_-]?key[ =:]|authorization:|bearer |token[=:]|password[=:]", re.IGNORECASE)


@dataclass(frozen=True)
class KnownHost:
    typed: str
    address: str
    known_as: str
    volume: str | None
    seen_at: float | None
    fingerprints: tuple[str, ...]
    destroy: tuple[str, ...] = ()
    default: bool = False


def known() -> list[KnownHost]:
    """Every host that was reached, the latest last."""
    found = []
    for typed, note in host_notes().items():
        pins = known_hosts.pinned(places.known_hosts(), note.known_as or "")
        fingerprints = tuple(f"{key.type} {key.fingerprint}" for key in pins)
        address, known_as = note.address or "", note.known_as or ""
        found.append(
            KnownHost(
                typed, address, known_as, note.volume or None, note.seen_at, fingerprints, note.destroy, note.default
            )
        )
    return sorted(found, key=lambda host: host.seen_at or 0.0)


def use_gpu(name: str, gpu: int, report: Reporter) -> bool:
    """Has the box give a GPU that was set aside to runs again; whether it was set aside."""
    with connect(resolve_or_start_host(name), report) as link:
        return link.agent.use_gpu(gpu)


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
    host = resolve_or_start_host(name, volume)
    note_volume(host, host.volume or volume)


def set_default(name: str | None) -> None:
    """From now on ``submit`` and ``check`` mean that host where none is named; None: they ask for one again.

    Nothing is sent there. Raises HostError for what can be no host.
    """
    if name is not None and name != LOCAL:
        resolve(name, None)
    note_default(name)


def set_destroy(name: str, text: str) -> tuple[str, ...]:
    """Notes the command, as typed for a shell, that destroys the box at ``name``; gives its words. No shell will read it.

    Raises UserError for a text that is no command, or that holds what looks like a key: the note stays on this disk.
    """
    try:
        command = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"--destroy {text!r} cannot be read: {error}", meaning="Nothing was noted.") from None
    if not command:
        raise UserError("--destroy is empty", meaning="Nothing was noted.")
    if redact(text) != text or _KEY_OPTION.search(text):
        raise UserError(
            "--destroy holds what looks like a key",
            meaning="Nothing was noted: the note stays on this disk, and the command is shown.",
            hint="Log in with your provider's tool, or write a script that reads the key from where you keep it, and name that.",
        )
    note_destroy(resolve_or_start_host(name), command)
    return command


@dataclass(frozen=True)
class Move:
    """What ``move_host`` did: the runs whose records name the new address now, those that were not on that box, pins removed."""

    old: str
    new: str
    runs: tuple[str, ...]
    left: tuple[str, ...]
    keys_removed: int


def find_at(run: Run, typed: str, report: Reporter) -> Run:
    """The run, found on the box at this address; its record names that address from now on.

    Raises RunLost where the box does not have the run or is another one; the record is then as it was.
    """
    if typed == run.host:
        return run
    with connect(resolve_or_start_host(typed, run.volume), report) as link:
        status = link.agent.status(run.run_id)
        if status.cause == NOT_THERE:
            raise _not_found(run, link, "has no such run")
        if run.box and link.agent.identity and link.agent.identity != run.box:
            raise _not_found(run, link, "has a folder of that name, but is another box than the one it was started on")
        _follow(run, link, typed, status)
    report.note(f"{run.run_id} is on {typed} now")
    return run


def follow_if_there(run: Run, typed: str, report: Reporter) -> bool:
    """Whether the run lies on the box at this address; its record names that address from now on. Else the record is as it was.

    The box may keep the run below another root than it would choose itself. Raises HostError where the box does not answer.
    """
    with connect(resolve_or_start_host(typed), report) as link:
        status = link.agent.status(run.run_id)
        there = status.cause != NOT_THERE
        if there and (not run.box or not link.agent.identity or link.agent.identity == run.box):
            _follow(run, link, typed, status)
            return True
        roots = [run.root] if run.root and run.root != link.agent.root else []
        elsewhere = roots and any(each.run_id == run.run_id for each in link.agent.holdings(roots).runs)
    if not elsewhere:
        return False
    try:
        find_at(run, typed, report)
    except RunLost:
        return False
    return True


def move_host(old: str, new: str, report: Reporter) -> Move:
    """Lets every run of the host ``old`` follow its box to the address ``new``, and what was noted of it; old pins are removed.

    Raises UserError for a host that nothing is known of, HostError where ``new`` is not the same box.
    """
    noted, runs = host_notes().get(old), _runs_of(old)
    if old == new:
        raise UserError(f"{old!r} is given twice", hint="Name the old address, then the new one.")
    if noted is None and not runs:
        raise UserError(f"this machine knows no host {old!r}", hint="gpurun hosts lists those that it knows.")
    with connect(resolve_or_start_host(new, noted.volume if noted else None), report) as link:
        there = {status.run_id: status for status in link.agent.all_status().runs}
        following = [run for run in runs if _is_there(run, link, there)]
        if not following and not (noted and noted.box and noted.box == link.agent.identity):
            raise HostError(
                f"the box at {new} is not the one that was at {old}: it has none of its runs"
                + (" and another identity" if noted and noted.box else ""),
                meaning="Nothing was changed.",
                hint=f"gpurun list --host '{new}' shows what is on that box.",
            )
        for run in following:
            _follow(run, link, new, there.get(run.run_id))
    if noted is not None and noted.default:
        note_default(new)
    followed = {run.run_id for run in following}
    left = tuple(run.run_id for run in runs if run.run_id not in followed)
    removed = 0 if left else _forget(old, noted)
    return Move(old, new, tuple(run.run_id for run in following), left, removed)


def _runs_of(old: str) -> list[Run]:
    """The runs that were started under this name, or under another name of the same address."""
    address = _address(old)
    runs = store.load_all()[0]
    return [run for run in runs if run.may_be_there and (run.host == old or (address and run.address == address))]


def _address(typed: str) -> str:
    try:
        return str(resolve(typed, None))
    except HostError:  # a name that is no address any more
        return ""


def _is_there(run: Run, link: Link, there: dict[str, Status]) -> bool:
    """Whether this box is the run's: a run that was deleted there since is recognised by the identity alone."""
    if run.box and link.agent.identity:
        return run.box == link.agent.identity
    return run.run_id in there


def _follow(run: Run, link: Link, typed: str, status: Status | None) -> None:
    host: Host = link.host
    box = link.agent.identity or run.box
    noted = host_notes().get(run.host)
    if noted is not None and noted.destroy and noted.box and noted.box == link.agent.identity:
        note_destroy(host, noted.destroy)  # it names the box and not its address
    store.update(run, host=typed, address=str(host), volume=link.agent.volume, root=link.agent.root, box=box)
    if status is not None and not (run.status and run.status.finished):
        remember_status(run, status)


def _forget(old: str, noted: HostNote | None) -> int:
    """Removes what was noted of the old address, and its pins unless another name has them too. Gives the number of pins."""
    forget_notes([old])
    name = noted.known_as if noted else None
    if name is None or any(note.known_as == name for note in host_notes().values()):
        return 0
    return known_hosts.forget(places.known_hosts(), name)


def _not_found(run: Run, link: Link, why: str) -> RunLost:
    return RunLost(
        f"{run.run_id} is not on the box at {link.host.typed}: it {why}",
        meaning=f"Nothing was changed: the record of the run names {run.host} as before.",
        hint=f"gpurun list --host '{link.host.typed}' shows what is on that box.",
    )
