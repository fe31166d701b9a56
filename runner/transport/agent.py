"""What the agent on the box can be asked: one method a verb, typed in both directions. This file is the table of verbs.

It is the one door for the box's words: every answer, notice, piece of a log and error is checked here, and nothing that leaves
this file need be doubted. What cannot be is AbsurdAnswer, which names the field.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.protocol import Frame
from runner.domain.answers import verbs
from runner.domain.answers.box import Box
from runner.domain.answers.holdings import Holdings
from runner.domain.answers.manifest import Manifest, parse_manifest
from runner.domain.answers.reading import Fields, Impossible, list_of, string, text, whole, whole_between
from runner.domain.answers.status import Status
from runner.domain.errors import AbsurdAnswer, ArtifactError
from runner.transport.session import AgentSession, Patience, document

T = TypeVar("T")
Tell = Callable[[str], None]
MINUTE = 60.0

# How long the box may be silent about a request, in seconds, before it is given up: its beats say that the agent lives, not that it
# works. Progress, log and events count as signs of work. The longest of these is what an honest, slow box may need.
PATIENCE = {
    "probe": 2 * MINUTE,
    "install_payload": 5 * MINUTE,
    "install_tools": 10 * MINUTE,  # apt-get without a word, on a slow mirror
    "provision": 10 * MINUTE,  # the agent says every minute that a command still runs
    "seal": 30 * MINUTE,  # walks through all of the data
    "compare": 30 * MINUTE,
    "patch": 10 * MINUTE,
    "stale": 5 * MINUTE,
    "launch": 60 * MINUTE,  # a resumed run's outputs may be copied
    "status": 3 * MINUTE,
    "follow": 5 * MINUTE,  # the agent tells the status every minute
    "stop": 2 * MINUTE,  # beyond the grace
    "manifest": 30 * MINUTE,  # walks through the outputs, then tells of each second of hashing
    "holdings": 5 * MINUTE,
    "wipe": 2 * MINUTE,
    "clean": 60 * MINUTE,  # adds up the sizes of whole environments on network disks
    "checkpoints": 5 * MINUTE,
    "sample": 30 * MINUTE,  # a large model is read from a slow disk
}


class Agent:
    """One agent on the box for as long as a command needs it. Thread-safe.

    Every method raises LinkLost for a connection that broke, Unanswered when the box is silent for longer than PATIENCE,
    AbsurdAnswer, and the errors that the verb itself names.
    """

    def __init__(self, session: AgentSession) -> None:
        self._session = session

    @property
    def root(self) -> str:
        """``$ROOT`` on the box. Raises BoxNotReady or ConnectFailed when no agent starts there."""
        return self._session.root

    def close(self) -> None:
        """Ends the agent; runs do not notice."""
        self._session.close()

    def probe(self, args: dict[str, Any]) -> Box:
        """What the box is and what is there already: ``code_digest``, ``job_name``, ``data`` ``[{key, digest}]``, ``env_key``,
        ``payload``, ``python``, ``requirements`` (ranges), ``interpreters`` (more places to look),
        ``interpreter`` (given), ``program`` (a command's first word), ``variables`` (the job's PATH), ``gpus``, ``disk``."""
        return self._ask("probe", args, lambda answer: Box.parse(answer))

    def install_payload(self, sha256: str, zipped: bytes) -> None:
        """The training package, unpacked beside its final name, then renamed."""
        self._ask("install_payload", {"sha256": sha256}, _nothing, blobs=[zipped])

    def install_tools(self, tools: Sequence[str], tell: Tell) -> None:
        """By apt, only as root; ``tell`` gets the lines it prints."""
        self._ask("install_tools", {"tools": list(tools)}, _nothing, _lines(tell))

    def provision(
        self,
        *,
        key: str,
        python: str | None,
        requirements: str,
        ranges: Sequence[str],
        interpreter: str | None,
        interpreters: Sequence[str],
        tell: Tell,
    ) -> verbs.Provisioned:
        """A Python with these packages, by the cheapest way there is. ``tell`` gets lines. Raises EnvironmentFailed."""
        args = {
            "key": key, "python": python, "requirements": requirements, "ranges": list(ranges), "interpreter": interpreter,
            "interpreters": list(interpreters),
        }  # fmt: skip
        return self._ask("provision", args, verbs.read_provisioned, _lines(tell))

    def seal(self, args: dict[str, Any]) -> None:
        """Moves the attempt ``incoming`` to ``data/<key>`` where it is what was meant (``digest, marks, contents, permissions``).

        ``read_at`` is when this machine last saw it so. Raises PushDiffers, and TransferInterrupted where it is gone.
        """
        self._ask("seal", args, _nothing)

    def compare(self, attempt: str, meant: bytes) -> tuple[verbs.Difference, ...]:
        """In what a pushed tree is not what was ``meant`` (packed JSON: path to size, seconds, mode and sha256, or to a link's target)."""
        return self._ask("compare", {"incoming": attempt}, verbs.read_differences, blobs=[meant])

    def patch(self, args: dict[str, Any], packed: bytes) -> None:
        """Makes the attempt ``incoming`` of a run's code (``run_id``) or of an ``earlier`` attempt and the few ``files`` in ``packed``.
        Raises TransferInterrupted where that would not be the tree that ``marks`` names, and rsync does it."""
        self._ask("patch", args, _nothing, blobs=[packed])

    def stale(self, *, kill: bool, gpus: int | str) -> verbs.Stale:
        """Who has the GPUs open: left-overs of finished runs are ended, with ``kill`` the others too."""
        return self._ask("stale", {"kill": kill, "gpus": gpus}, verbs.read_stale)

    def launch(self, run_id: str, args: dict[str, Any]) -> verbs.Launched:
        """The claim (``mkdir``) and the confirmed start, or what is there under this id. Raises LaunchError and its kinds.

        ``args``: ``job, code {incoming, link_from, read_at, digest, marks, contents, permissions}, data [{path, key, member}], outputs,
        interpreter, payload, command, module, torchrun, processes, variables, secrets {NAME: value}, gpus (n, "all"), queue, time_limit,
        log_limit (bytes, 1 GiB), resume {run_id, checkpoint}``. Raises PushDiffers where the code is not what was meant.
        """
        return self._ask("launch", {**args, "run_id": run_id}, _of(run_id, verbs.read_launched))

    def status(self, run_id: str) -> Status:
        """One run; a run that is not there is lost, its folder deleted."""
        found = self._ask("status", {"run_ids": [run_id]}, lambda answer: answer("runs", list_of(Status.parse, 1)))
        if not found or found[0].run_id != run_id:
            self._absurd("status", Impossible("an answer about another run", "runs"))
        return found[0]

    def all_status(self) -> tuple[Status, ...]:
        """Every run on the box, newest first."""
        return self._ask("status", {}, lambda answer: answer("runs", list_of(Status.parse)))

    def follow(
        self,
        run_id: str,
        *,
        log_offset: int,
        generation: str | None,
        events_offset: int,
        until_end: bool,
        tail: int | None = None,
    ) -> Iterator[verbs.Notice | verbs.Followed]:
        """The run's log and events from these offsets on, and notices; ends with Followed. Raises RunLost."""
        args = {
            "run_id": run_id, "log": {"offset": log_offset, "generation": generation}, "events": {"offset": events_offset},
            "until_end": until_end, "tail": tail,
        }  # fmt: skip
        for frame in self._session.stream("follow", args, patience=Patience(PATIENCE["follow"])):
            yield from self._followed(run_id, frame)

    def _followed(self, run_id: str, frame: Frame) -> Iterator[verbs.Notice | verbs.Followed]:
        with self._checked("follow"):
            if frame.type in (protocol.LOG, protocol.EVENTS):
                said: tuple[verbs.Notice | verbs.Followed, ...] = (
                    verbs.read_piece("log" if frame.type == protocol.LOG else "events", frame.payload),
                )
            elif frame.type == protocol.PROGRESS:
                said = verbs.read_notices(self._fields(frame))
            else:
                said = (
                    _of(run_id, lambda answer: verbs.Followed(answer("status", Status.parse)))(self._fields(frame)),
                )
        yield from said

    def stop(self, run_id: str, grace: float, tell: Tell) -> verbs.Ended:
        """TERM, ``grace`` seconds, KILL, until two scans find nobody; ``tell`` gets lines. Raises RunLost."""
        args = {"run_id": run_id, "grace": grace}
        return self._ask("stop", args, _of(run_id, verbs.read_ended), _lines(tell), patience=grace + PATIENCE["stop"])

    def manifest(
        self, run_id: str, hashed: Callable[[int, int], None] = lambda done, total: None, *, root: str | None = None
    ) -> Manifest:
        """What the run (below ``root``, by itself the agent's) has: all of it once it is over, before only what is whole and logs as
        they are; once over with what came into ``outputs/`` later. ``hashed`` gets bytes done and in all. Raises RunLost,
        ArtifactError."""

        def tell(said: Fields) -> None:
            hashed(said("done", whole), said("total", whole))

        return self._ask("manifest", {"run_id": run_id, **({"root": root} if root else {})}, parse_manifest, tell)

    def holdings(self, roots: Sequence[str]) -> Holdings:
        """All that would go with the box: runs of everybody, pushes that no run took, runs that live without a folder."""
        return self._ask("holdings", {"roots": list(roots)}, Holdings.parse)

    def wipe(self, run_id: str) -> tuple[str, ...]:
        """Removes the run's secrets; the paths that are left all the same. Raises LaunchError while the run needs them."""
        return self._ask("wipe", {"run_id": run_id}, lambda answer: answer("left", list_of(text)))

    def clean(
        self, *, dry_run: bool, run_ids: Sequence[str], fetched: Sequence[str], everything: bool, tell: Tell
    ) -> verbs.Cleaned:
        """What gpurun may delete: of runs those that are over and named or ``fetched`` (home and verified), or left neither outputs nor a
        log; and what nothing refers to."""
        args = {"dry_run": dry_run, "run_ids": list(run_ids), "fetched": list(fetched), "everything": everything}
        return self._ask("clean", args, verbs.read_cleaned, _lines(tell))

    def checkpoints(self, run_id: str) -> dict[str, verbs.Kept]:
        """The run's complete checkpoints by name, oldest first, the finished model (``best``) last. Raises RunLost."""
        return self._ask("checkpoints", {"run_id": run_id}, verbs.read_checkpoints)

    def sample(self, run_id: str, module: str, arguments: Sequence[str], asked: Iterable[bytes]) -> Iterator[str]:
        """The lines that a module of the payload prints beside the run; it is given the next of ``asked`` after each line of JSON.

        Raises ArtifactError when it fails. Time that ``asked`` takes is the user's, and no silence of the box.
        """
        patience = Patience(PATIENCE["sample"])
        turn = threading.Semaphore(0)  # the model listens

        def one_by_one() -> Iterator[bytes]:
            turn.acquire()
            for each in asked:
                patience.resume()
                yield each
                turn.acquire()
            patience.resume()

        call = {"run_id": run_id, "module": module, "arguments": list(arguments), "listen": True}
        for frame in self._session.stream("sample", call, blobs=one_by_one(), patience=patience):
            with self._checked("sample"):
                said = self._fields(frame)
                line = said("line", string) if frame.type == protocol.PROGRESS else ""
                code = said("code", whole_between(-255, 255)) if frame.type == protocol.RESULT else 0
            if code:
                raise _ended_early(code)
            if line:
                yield line
            if line.startswith("{"):  # and not a library that prints
                patience.pause()
                turn.release()

    def _ask(
        self,
        verb: str,
        args: dict[str, Any],
        read: Callable[[Fields], T],
        progress: Callable[[Fields], None] | None = None,
        *,
        blobs: Iterable[bytes] = (),
        patience: float | None = None,
    ) -> T:
        """One request, answered; ``progress`` is given each notice."""
        for frame in self._session.stream(verb, args, blobs=blobs, patience=Patience(patience or PATIENCE[verb])):
            with self._checked(verb):
                said = self._fields(frame)
                if frame.type == protocol.RESULT:
                    return read(said)
                if progress is not None:
                    progress(said)
        raise AssertionError("a stream ends in a result, or raises")

    def _fields(self, frame: Frame) -> Fields:
        if frame.type not in (protocol.PROGRESS, protocol.RESULT):
            raise Impossible(f"a frame of type {frame.type!r}")
        return Fields(document(frame, self._session.where))

    @contextlib.contextmanager
    def _checked(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Impossible as error:
            self._absurd(verb, error)

    def _absurd(self, verb: str, error: Impossible) -> NoReturn:
        raise AbsurdAnswer(
            f"the box {self._session.where} reported what cannot be for {error.inside(verb).path}: {error.why}",
            meaning="Nothing of that answer was used; what runs on the box goes on running.",
            hint="Repeat the command; if this repeats, do not trust this box.",
        ) from None


def _nothing(answer: Fields) -> None:
    """For a verb whose answer only says that it is done."""


def _lines(tell: Tell) -> Callable[[Fields], None]:
    return lambda said: tell(said("line", text))


def _of(run_id: str, read: Callable[[Fields], T]) -> Callable[[Fields], T]:
    """The same reader for an answer with the status of one run, which must be this one."""

    def read_of(answer: Fields) -> T:
        found = read(answer)
        if answer("status", Status.parse).run_id != run_id:
            raise Impossible("the status of another run", "status.run_id")
        return found

    return read_of


def _ended_early(code: int) -> ArtifactError:
    return ArtifactError(f"the model's process on the box ended with {code} before it had answered all")
