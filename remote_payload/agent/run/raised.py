"""Finds the line of a log with the exception that ended the run: not a launcher's message that a worker failed, not an error of the other
ranks when they lost it, not an exception that was handled. Pure."""

import re
from typing import Dict, List, NamedTuple, Optional, Sequence

ERROR_LINE = re.compile(r"^\s*(?:\S+: )?[\w.]*(?:Error|Exception|Interrupt|Killed|fatal|FATAL|panic)\b")
# [rank1]: is torch's, [default1]: and [trainer1]: are torchrun's with --tee.
RANK = re.compile(r"^(?:\[[A-Za-z_-]+(\d+)\]:\s?)+")
GROUP = re.compile(r"^\s*(?:[|+][-+]*\s?)+")  # the frame of an exception group
BEGINNING = re.compile(r"^\s*(?:Exception Group )?Traceback \(most recent call last\)")
NAMED = re.compile(
    r"^(?:[A-Za-z_][\w.]*: |(?:\w+\.)*[A-Z]\w*:?$)"
)  # a word alone is an exception only where it looks like a class
# torchrun, accelerate, torch.multiprocessing, deepspeed, make: a process below them failed, and its own exception is elsewhere.
LAUNCHER = re.compile(
    r"ChildFailedError|CalledProcessError: Command |ProcessExitedException|SignalException: Process \d+ got signal|"
    r"exits with return code|^make: \*\*\*|ExceptionGroup: "
)
# The messages of a rank when another one has ended.
CONSEQUENCE = re.compile(
    r"Connection (?:closed|reset) by peer|ConnectionResetError|BrokenPipe|Broken pipe|remote process exited|ncclRemoteError|"
    r"Watchdog caught collective|DistBackendError|DistNetworkError|DistStoreError|failed to recv|recvValue failed|"
    r"Timed out waiting \d+ms|wait timeout after|got signal: 15|SIGTERM"
)
CHAIN = re.compile(r"During handling of the above exception|The above exception was the direct cause")
ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\)")
ROOT_RANK = re.compile(r"^\s*rank\s*: (\d+) ")
END_MESSAGES = (re.compile(r"Signal \d+ \(SIG\w+\) received by PID"), re.compile(r"^\s*exitcode\s*: -?\d+"))


class Raised(NamedTuple):
    """An exception's last line: its number in the log, its text, and the rank that printed it."""

    at: int
    line: str
    rank: Optional[int]


def find(lines: Sequence[str]) -> List[Raised]:
    """Every exception in ``lines``, without those of launchers."""
    found: List[Raised] = []
    inside: Dict[Optional[int], bool] = {}  # whether a traceback of this rank has begun
    for at, line in enumerate(lines):
        matched = RANK.match(line)
        rank = int(matched.group(1)) if matched else None
        framed = line[matched.end() :] if matched else line
        body = GROUP.sub("", framed)
        if BEGINNING.match(body):
            inside[rank] = True
        elif (inside.get(rank) and NAMED.match(body)) or ERROR_LINE.search(body):
            inside[rank] = False
            if not LAUNCHER.search(body):
                found.append(Raised(at, (matched.group(0) if matched else "") + body, rank))
    return found


def root(lines: Sequence[str]) -> Optional[Raised]:
    """The exception that ended the run, None where the log has none.

    Of one process the last; of several the last one of the rank that failed first, and an error of its own before a lost peer.
    """
    found = find(lines)
    if not found:
        return None
    if not is_launched(lines, found):
        return found[-1]
    first, table = _first_rank(lines), _root_cause(lines)
    own = [each for each in found if each.rank == first] if first is not None else []
    if (
        not own and table is not None
    ):  # that rank's output is in a file (--redirects): its @record has brought its error here
        own = [each for each in found if each.at > table]
    for some in (own, found):
        firsthand = [each for each in some if not CONSEQUENCE.search(each.line)]
        if firsthand:
            return firsthand[-1] if some is own else _first_of_last(firsthand)
    return (own or found)[-1]


def is_launched(lines: Sequence[str], found: Sequence[Raised]) -> bool:
    """Whether several processes wrote this log, or one under a launcher."""
    return len({each.rank for each in found}) > 1 or any(LAUNCHER.search(line) for line in lines)


def belongs(lines: Sequence[str], at: int, cause: Optional[Raised]) -> bool:
    """Whether the line ``at`` belongs to the exception ``cause``: it is the same line, after it, or in its chain."""
    return cause is None or at >= cause.at or any(CHAIN.search(line) for line in lines[at : cause.at])


def end_message(lines: Sequence[str]) -> Optional[str]:
    """The end of a log without an exception: a launcher's message on how its worker ended (the first one), else the last line."""
    first = lines[_root_cause(lines) or 0 :]
    for pattern in END_MESSAGES:
        for line in reversed(first):
            if pattern.search(line):
                return line
    return lines[-1] if lines else None


def _root_cause(lines: Sequence[str]) -> Optional[int]:
    """Where torchrun's table tells of the worker that failed first; None without one."""
    return max((at for at, line in enumerate(lines) if ROOT_CAUSE.search(line)), default=None)


def _first_rank(lines: Sequence[str]) -> Optional[int]:
    start = _root_cause(lines)
    ranks = (ROOT_RANK.match(line) for line in lines[start:]) if start is not None else iter(())
    return next((int(rank.group(1)) for rank in ranks if rank), None)


def _first_of_last(found: Sequence[Raised]) -> Raised:
    """Each rank's last exception ended it; the earliest of those is the first failure."""
    return min({each.rank: each for each in found}.values(), key=lambda each: each.at)
