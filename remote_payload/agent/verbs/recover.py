"""Verb ``recover``: the runs that a restart has interrupted, what each needs to start again, and the new starts of those that are named.

A new start takes the place of the interrupted run under an id of its own. One ``recover`` works at a time, and a run whose place is
taken is never started again: the same request any number of times, from any number of laptops, starts each run once.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Dict, Iterator, List, NamedTuple, Optional

from remote_payload.agent.box import gpus, locks
from remote_payload.agent.run import events, state
from remote_payload.agent.run.alive import Box
from remote_payload.agent.verbs.launch import start
from remote_payload.agent.verbs.recovery import interrupted
from remote_payload.agent.verbs.recovery.interrupted import RAN, Interrupted
from remote_payload.agent.verbs.recovery.needs import Disk, Needs, replaced_paths
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.launch_request import Code, LaunchRequest, Resume
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.redact import redact
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.box.gpus import Gpu
    from remote_payload.agent.wire.answers import InterruptedRun, NotRecovered, Recovered, StartedAgain

PATIENCE = 60.0  # seconds that a request waits for another one


class Wish(NamedTuple):
    """An interrupted run that is to be started again under a new id, with these of the secrets, and perhaps another interpreter."""

    earlier: str
    run_id: str
    secrets: List[str]
    interpreter: Optional[str]


def recover(request: Request) -> Recovered:
    """``{runs, failed, known}``; progress ``{started}`` as each run starts.

    ``start`` is a list of wishes (without any nothing is changed), ``secrets`` their values by name. ``runs`` are those that a restart has
    interrupted, in the order of their turns; ``failed`` says of each wish that was not done why; ``known`` is the status of each run
    of ``known``. Where the request is cancelled the rest is left; each run was started as a whole then, or not at all.
    """
    asked = request.fields("LaunchError")
    wishes = {wish.earlier: wish for wish in map(_read_wish, asked.list_of_fields("start"))}
    secrets, known = asked.text_by_name("secrets"), asked.run_ids("known")
    failed: "List[NotRecovered]" = []
    if wishes:
        with _alone(request.paths):
            failed = _start_all(request, wishes, secrets)
    box, disk = Box(), Disk(request.paths)
    return {
        "runs": [_describe(each, disk, box) for each in interrupted.in_order(request.paths, box)],
        "failed": failed,
        "known": [state.status_of(request.paths.run(run_id), box) for run_id in known],
    }


def _read_wish(asked: Fields) -> Wish:
    earlier = asked.run_id("earlier")
    return Wish(earlier, asked.run_id(), asked.texts("secrets"), asked.optional_text("interpreter"))


@contextmanager
def _alone(paths: BoxPaths) -> Iterator[None]:
    """For the length of the block no other request recovers runs of this root. Raises AgentError where another one takes too long."""
    os.makedirs(paths.locks, 0o700, exist_ok=True)
    lock = locks.take_within(locks.lock_file(os.path.join(paths.locks, "recover")), PATIENCE)
    if lock is None:
        message = "another gpurun has been starting the interrupted runs of this box for a minute"
        raise AgentError("LaunchError", message, "Repeat the command: it starts those that are left then.")
    try:
        yield
    finally:
        os.close(lock)


def _start_all(request: Request, wishes: Dict[str, Wish], secrets: Dict[str, str]) -> List[NotRecovered]:
    """Starts the runs of the wishes in the order of their turns; those that were not started, and why."""
    paths, disk = request.paths, Disk(request.paths)
    left, failed = dict(wishes), []
    there: "Optional[List[Gpu]]" = None
    for each in interrupted.in_order(paths):
        wish = left.pop(each.run.run_id, None)
        if wish is None or each.successor:
            continue
        if request.cancelled.is_set():
            break
        there = gpus.list_gpus() if there is None else there
        try:
            started = _start(paths, each, wish, secrets, disk, there)
        except (AgentError, OSError) as error:
            failed.append(_not_started(each.run.run_id, error, secrets))
            continue
        request.progress({"started": started})
    failed += [{"run_id": run_id, "message": "it is not one that a restart interrupted", "hint": ""} for run_id in left]
    return failed


def _not_started(run_id: str, error: Exception, secrets: Dict[str, str]) -> NotRecovered:
    message, hint = (error.message, error.hint) if isinstance(error, AgentError) else (str(error), "")
    return {"run_id": run_id, "message": redact(message, secrets.values()), "hint": redact(hint, secrets.values())}


def _start(
    paths: BoxPaths, each: Interrupted, wish: Wish, secrets: Dict[str, str], disk: Disk, there: Optional[List[Gpu]]
) -> StartedAgain:
    """Raises AgentError where something that the run needs is gone, and what ``launch`` raises."""
    found = disk.needs(each.run, wish.interpreter)
    why = found.in_words()
    if found.asked is None or why:
        raise AgentError("LaunchError", "; ".join(why))
    given = {name: secrets[name] for name in wish.secrets if name in secrets}
    answer = start(paths, _again(each, found.asked, wish, given), there)
    return {"earlier": each.run.run_id, **answer}


def _again(each: Interrupted, asked: LaunchRequest, wish: Wish, secrets: Dict[str, str]) -> LaunchRequest:
    """The request of the interrupted run as that of the one that takes its place. It waits for its GPUs where they are not free."""
    return asked._replace(
        run_id=wish.run_id,
        code=Code(link_from=each.run.run_id, without=tuple(replaced_paths(asked))),
        interpreter=wish.interpreter or asked.interpreter,
        secrets=secrets,
        queue=True,
        resume=_resume(each, asked),
        continues=each.run.run_id,
    )


def _resume(each: Interrupted, asked: LaunchRequest) -> Optional[Resume]:
    """Where its program goes on: at its own last checkpoint; where it had none, or had not begun, at the one that it was to begin with."""
    saved = events.last(each.run.events).get("checkpoint")
    if each.was == RAN and (saved or asked.resume is None):
        return Resume(each.run.run_id, "auto")
    return asked.resume._replace(run_id=each.run.run_id, outputs=None) if asked.resume else None


def _describe(each: Interrupted, disk: Disk, box: Box) -> InterruptedRun:
    # What a run needed whose place is taken is of no interest, and may be much to look at.
    found = disk.needs(each.run) if each.successor is None else Needs(None, [])
    status = state.status_of(each.run, box)
    return {
        "status": status,
        "was": each.was,
        "successor": each.successor,
        "missing": found.missing,
        "environment": found.environment,
        "payload": found.payload,
        "checkpoint": found.checkpoint,
    }
