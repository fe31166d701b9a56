"""The requests that the agent on the box answers: one method a verb, typed in both directions. This file is the table of verbs.

Everything that the box sends is checked here and nowhere behind it: each answer, notice, piece of a log and error. A field that is missing,
of another type or beyond all bounds raises AbsurdAnswer, which names it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NoReturn, TypeVar

from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.protocol import Frame
from runner.domain.answers import verbs
from runner.domain.answers.box import Box
from runner.domain.answers.checkpoints import Listed, read_listed
from runner.domain.answers.holdings import Holdings
from runner.domain.answers.manifest import Manifest, parse_manifest
from runner.domain.answers.reach import Listening, Reached, read_listening, read_reached
from runner.domain.answers.reading import Fields, Impossible, boolean, list_of, string, text, whole, whole_between
from runner.domain.answers.recovery import Recovery, StartedAgain, read_recovery, read_started
from runner.domain.answers.results import Results, read_results
from runner.domain.answers.status import Status
from runner.domain.errors import AbsurdAnswer, ArtifactError
from runner.domain.requests import LaunchRequest, PatchRequest, PeerRequest, ProbeRequest, RecoverRequest, SealRequest
from runner.transport.session import AgentSession, Patience, document

T = TypeVar("T")
Tell = Callable[[str], None]
MINUTE = 60.0

# For how many seconds nothing may be heard of a request before it is given up. Beats do not count: they show that the agent lives, not that
# it works. Progress, log and events count. Each limit is what an honest, slow box may need.
PATIENCE = {
    "probe": 2 * MINUTE,
    "reach": 2 * MINUTE,
    "install_payload": 5 * MINUTE,
    "install_tools": 10 * MINUTE,  # apt-get prints nothing while it loads from a slow mirror
    "provision": 10 * MINUTE,  # the agent says every minute that a command still runs
    "seal": 30 * MINUTE,  # walks through all of the data
    "share": 60 * MINUTE,  # outputs may be copied
    "compare": 30 * MINUTE,
    "patch": 10 * MINUTE,
    "stale": 5 * MINUTE,
    "use_gpu": MINUTE,
    "launch": 60 * MINUTE,  # a resumed run's outputs may be copied
    "status": 3 * MINUTE,
    "follow": 5 * MINUTE,  # the agent tells the status every minute
    "stop": 2 * MINUTE,
    "recover": 60 * MINUTE,  # looks at all data and environments that runs need, and copies outputs
    "manifest": 30 * MINUTE,  # walks through the outputs, then tells of each second of hashing
    "holdings": 5 * MINUTE,
    "wipe": 2 * MINUTE,
    "clean": 60 * MINUTE,  # adds up the sizes of whole environments on network disks
    "checkpoints": 5 * MINUTE,
    "results": 5 * MINUTE,  # lists the checkpoints of many runs
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

    @property
    def identity(self) -> str:
        """The number that lies in the root: the same box at another address has the same. "" before the first answer, or without one."""
        return self._session.identity

    @property
    def volume(self) -> str | None:
        """The folder that holds the root (``Host.volume``); None before the first answer."""
        return self._session.volume

    def close(self) -> None:
        """Ends the agent; runs do not notice."""
        self._session.close()

    def probe(self, request: ProbeRequest) -> Box:
        """What the box is, and which of the things that the request names it has already."""
        return self._ask("probe", request, lambda answer: Box.parse(answer))

    @contextlib.contextmanager
    def listening(self, greeting: str, reply: str) -> Iterator[Listening]:
        """While the block lasts the box answers other boxes that know ``greeting``, with ``reply``. Raises BoxNotReady."""
        asked = {"listen": {"greeting": greeting, "reply": reply}}
        with contextlib.closing(self._session.stream("reach", asked, patience=Patience(PATIENCE["reach"]))) as frames:
            with self._checked("reach"):
                told = read_listening(self._fields(next(frames)))
            yield told

    def reach(self, peers: Sequence[PeerRequest], seconds: float = 0.0) -> tuple[Reached, ...]:
        """How the box reaches each of these; with ``seconds`` of data to each, one after the other, also how fast."""
        reached = self._ask("reach", {"peers": list(peers), "seconds": seconds}, read_reached)
        if [each.address for each in reached] != [each["address"] for each in peers]:
            self._absurd("reach", Impossible("an answer about other boxes", "reached"))
        return reached

    def install_payload(self, sha256: str, zipped: bytes) -> None:
        """Puts the training package below ``$ROOT/payload``; it is unpacked beside its final name, then renamed."""
        self._ask("install_payload", {"sha256": sha256}, _nothing, blobs=[zipped])

    def install_tools(self, tools: Sequence[str], tell: Tell) -> None:
        """Installs them with apt-get, which only root may; ``tell`` gets the lines it prints."""
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
        gpus: int | str,
        prove: bool = False,
        tell: Tell,
    ) -> verbs.Provisioned:
        """Makes an environment with these packages, in the cheapest way that this box allows. ``tell`` gets lines. With ``prove`` one that
        is there is used only if it is whole, file by file. Raises EnvironmentFailed.
        """
        args = {
            "key": key, "python": python, "requirements": requirements, "ranges": list(ranges), "interpreter": interpreter,
            "interpreters": list(interpreters), "gpus": gpus, "prove": prove,
        }  # fmt: skip
        return self._ask("provision", args, verbs.read_provisioned, _lines(tell))

    def seal(self, request: SealRequest) -> None:
        """Moves an attempt at pushing data to its final name, if it is what the laptop has.

        Raises PushDiffers, and TransferInterrupted where the attempt is gone.
        """
        self._ask("seal", request, _nothing)

    def share(self, run_id: str, path: str) -> verbs.Shared | None:
        """Makes what a run of this box wrote, at ``path`` in its outputs, data for other runs; None where the box has no such run.

        Raises LaunchError where the run has no such output or has not completed it, BoxNotReady for a full disk.
        """
        return self._ask("share", {"run_id": run_id, "path": path}, verbs.read_shared)

    def compare(self, attempt: str, meant: bytes) -> tuple[verbs.Difference, ...]:
        """How a pushed tree differs from the one that was ``meant`` (packed JSON: path to size, seconds, mode and sha256, or to a link's
        target)."""
        return self._ask("compare", {"incoming": attempt}, verbs.read_differences, blobs=[meant])

    def patch(self, request: PatchRequest, packed: bytes) -> None:
        """Makes a new attempt out of code that the box has and the few files whose contents, one after the other, are ``packed``.

        Raises TransferInterrupted where the result would not be the tree that the request names; rsync can push it then.
        """
        self._ask("patch", request, _nothing, blobs=[packed])

    def stale(self, *, kill: bool, gpus: int | str) -> verbs.Stale:
        """The processes that have a GPU open. Those of finished runs are ended, with ``kill`` the others too."""
        return self._ask("stale", {"kill": kill, "gpus": gpus}, verbs.read_stale)

    def launch(self, request: LaunchRequest) -> verbs.Launched:
        """Claims the run (``mkdir``), starts it and confirms the start; or tells what is there under its id already.

        Raises LaunchError and its kinds, and PushDiffers where the code is not what the laptop has.
        """
        return self._ask("launch", request, _of(request["run_id"], verbs.read_launched))

    def recover(self, request: RecoverRequest, started: Callable[[StartedAgain], None] = lambda run: None) -> Recovery:
        """The runs that a restart interrupted, after those that the request names were started again; ``started`` gets each at once.

        Raises LaunchError where another gpurun does the same for too long.
        """
        return self._ask("recover", request, read_recovery, lambda notice: started(read_started(notice)))

    def status(self, run_id: str) -> Status:
        """The status of one run. One whose folder is not on the box is lost."""
        found = self._ask("status", {"run_ids": [run_id]}, lambda answer: answer("runs", list_of(Status.parse, 1)))
        if not found or found[0].run_id != run_id:
            self._absurd("status", Impossible("an answer about another run", "runs"))
        return found[0]

    def statuses(self, run_ids: Sequence[str]) -> dict[str, Status]:
        """The same of several runs, by id."""
        read = list_of(Status.parse, len(run_ids))
        found = self._ask("status", {"run_ids": list(run_ids)}, lambda answer: answer("runs", read))
        if [status.run_id for status in found] != list(run_ids):
            self._absurd("status", Impossible("an answer about other runs", "runs"))
        return {status.run_id: status for status in found}

    def all_status(self) -> verbs.OnBox:
        """The status of every run on the box, newest first, and the GPUs that are set aside."""
        return self._ask("status", {}, verbs.read_on_box)

    def use_gpu(self, gpu: int) -> bool:
        """Has a GPU that was set aside given to runs again, by its number; whether it was set aside."""
        return self._ask("use_gpu", {"gpu": gpu}, lambda answer: answer("was_set_aside", boolean))

    def follow(
        self,
        run_id: str,
        *,
        log_offset: int,
        generation: str | None,
        events_offset: int,
        until_end: bool,
        tail: int | None = None,
        last_bytes: int | None = None,
    ) -> Iterator[verbs.Notice | verbs.Followed]:
        """The run's log and events from these offsets (bytes) on, and notices; ends with Followed. Raises RunLost.

        With ``tail`` the log's last lines instead; with ``last_bytes`` no more of the log than that at its beginning.
        """
        args = {
            "run_id": run_id, "log": {"offset": log_offset, "generation": generation}, "events": {"offset": events_offset},
            "until_end": until_end, "tail": tail, "last_bytes": last_bytes,
        }  # fmt: skip
        for frame in self._session.stream("follow", args, patience=Patience(PATIENCE["follow"])):
            yield from self._followed(run_id, frame)

    def _followed(self, run_id: str, frame: Frame) -> Iterator[verbs.Notice | verbs.Followed]:
        notices: tuple[verbs.Notice | verbs.Followed, ...]
        with self._checked("follow"):
            if frame.type in (protocol.LOG, protocol.EVENTS):
                notices = (verbs.read_piece("log" if frame.type == protocol.LOG else "events", frame.payload),)
            elif frame.type == protocol.PROGRESS:
                notices = verbs.read_notices(self._fields(frame))
            else:
                ended = _of(run_id, lambda answer: verbs.Followed(answer("status", Status.parse)))
                notices = (ended(self._fields(frame)),)
        yield from notices

    def stop(self, run_id: str, grace: float | None, tell: Tell) -> verbs.Ended:
        """Ends the run: TERM, after ``grace`` seconds KILL, until two scans find no process of it. None: as many seconds as the run
        needs to save a checkpoint. ``tell`` gets lines, every few seconds one. Raises RunLost.
        """
        args = {"run_id": run_id, **({} if grace is None else {"grace": grace})}
        return self._ask("stop", args, _of(run_id, verbs.read_ended), _lines(tell))

    def manifest(
        self,
        run_id: str,
        hashed: Callable[[int, int], None] = lambda done, total: None,
        *,
        root: str | None = None,
        everything: bool = False,
    ) -> Manifest:
        """The run's artifacts: while it runs those that are complete, and its logs as they are; afterwards all, also those that came into
        ``outputs/`` later. ``root`` is the folder of another agent's runs. ``hashed`` gets bytes done and in all. With ``everything``
        also outputs of a recipe that the job does not name. Raises RunLost, ArtifactError."""

        def tell(notice: Fields) -> None:
            hashed(notice("done", whole), notice("total", whole))

        asked: dict[str, object] = {"run_id": run_id, **({"root": root} if root else {})}
        return self._ask("manifest", {**asked, "everything": everything}, parse_manifest, tell)

    def holdings(self, roots: Sequence[str]) -> Holdings:
        """Everything that would be lost with the box: all runs, pushes that no run has taken, runs that live without a folder."""
        return self._ask("holdings", {"roots": list(roots)}, Holdings.parse)

    def wipe(self, run_id: str) -> tuple[str, ...]:
        """Removes the run's secrets; gives the paths of those that could not be removed. Raises LaunchError while the run needs them."""
        return self._ask("wipe", {"run_id": run_id}, lambda answer: answer("left", list_of(text)))

    def clean(
        self, *, dry_run: bool, run_ids: Sequence[str], fetched: Sequence[str], everything: bool, tell: Tell
    ) -> verbs.Cleaned:
        """Deletes what gpurun may delete: runs that are over, if they are named, ``fetched`` (home and verified) or have neither
        outputs nor a log; and everything that no run refers to."""
        args = {"dry_run": dry_run, "run_ids": list(run_ids), "fetched": list(fetched), "everything": everything}
        return self._ask("clean", args, verbs.read_cleaned, _lines(tell))

    def checkpoints(self, run_id: str) -> dict[str, verbs.Kept]:
        """The run's complete checkpoints by name, oldest first, the finished model (``best``) last. Raises RunLost."""
        return self._ask("checkpoints", {"run_id": run_id}, verbs.read_checkpoints)

    def all_checkpoints(self, run_id: str) -> Listed:
        """The run's checkpoints, also those that are not complete. Raises RunLost."""
        return self._ask("checkpoints", {"run_id": run_id}, read_listed)

    def results(self, run_ids: Sequence[str]) -> dict[str, Results]:
        """What these runs have come to, by id: status, evaluations, chosen model, checkpoints. One that is not on the box is lost."""
        found = self._ask("results", {"run_ids": list(run_ids)}, read_results)
        if [each.status.run_id for each in found] != list(run_ids):
            self._absurd("results", Impossible("an answer about other runs", "runs"))
        return {each.status.run_id: each for each in found}

    def sample(self, run_id: str, module: str, arguments: Sequence[str], prompts: Iterable[bytes]) -> Iterator[str]:
        """The lines that a module of the payload prints in the run's environment; after each line of JSON it is sent the next prompt.

        Raises ArtifactError when it fails. The time that the user takes for a prompt does not count as silence of the box.
        """
        patience = Patience(PATIENCE["sample"])
        ready = threading.Semaphore(0)  # released when the model waits for a prompt

        def one_by_one() -> Iterator[bytes]:
            ready.acquire()
            for prompt in prompts:
                patience.resume()
                yield prompt
                ready.acquire()
            patience.resume()

        call = {"run_id": run_id, "module": module, "arguments": list(arguments), "listen": True}
        for frame in self._session.stream("sample", call, blobs=one_by_one(), patience=patience):
            with self._checked("sample"):
                fields = self._fields(frame)
                line = fields("line", string) if frame.type == protocol.PROGRESS else ""
                code = fields("code", whole_between(-255, 255)) if frame.type == protocol.RESULT else 0
            if code:
                raise _ended_early(code)
            if line:
                yield line
            if line.startswith("{"):  # an answer, and not a message of some library
                patience.pause()
                ready.release()

    def _ask(
        self,
        verb: str,
        args: Mapping[str, object],
        read: Callable[[Fields], T],
        progress: Callable[[Fields], None] | None = None,
        *,
        blobs: Iterable[bytes] = (),
        patience: float | None = None,
    ) -> T:
        """The answer to one request, as ``read`` gives it; ``progress`` gets each notice."""
        for frame in self._session.stream(verb, args, blobs=blobs, patience=Patience(patience or PATIENCE[verb])):
            with self._checked(verb):
                fields = self._fields(frame)
                if frame.type == protocol.RESULT:
                    return read(fields)
                if progress is not None:
                    progress(fields)
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
            f"the box {self._session.where} reported an impossible value for {error.inside(verb).path}: {error.why}",
            meaning="Nothing of that answer was used; what runs on the box goes on running.",
            hint="Repeat the command; if this repeats, do not trust this box.",
        ) from None


def _nothing(answer: Fields) -> None:
    """For a verb whose answer only says that it is done."""


def _lines(tell: Tell) -> Callable[[Fields], None]:
    return lambda notice: tell(notice("line", text))


def _of(run_id: str, read: Callable[[Fields], T]) -> Callable[[Fields], T]:
    """``read`` for an answer that holds the status of one run. The reader that is given raises Impossible where it is another run's."""

    def read_of(answer: Fields) -> T:
        found = read(answer)
        if answer("status", Status.parse).run_id != run_id:
            raise Impossible("the status of another run", "status.run_id")
        return found

    return read_of


def _ended_early(code: int) -> ArtifactError:
    return ArtifactError(f"the model's process on the box ended with {code} before it had answered all")
