"""The supervisor of a run as the batch step of a Slurm job, on a compute node: docs/slurm.md.

It is the supervisor of a box, with three differences: the heartbeat in place of the lock; TERM may be Slurm's, before the end of
the time limit, at a preemption or at a ``scancel``; and a run that Slurm starts again goes on from its last checkpoint.
"""

import os
import signal
import sys
import threading
import time
from typing import Dict, Optional, Tuple

from remote_payload.agent.box import daemon, gpus, slurm
from remote_payload.agent.box.files import disk_clock
from remote_payload.agent.box.processes import Process
from remote_payload.agent.box.slurm import LASTING, Job, SlurmError
from remote_payload.agent.run import ending, events, run_folder, secrets, slot
from remote_payload.agent.run.causes import Explanation
from remote_payload.agent.run.order import NO_LOCK, LaunchFile, Order, read_launch
from remote_payload.agent.run.slurm import attempt, files, sealed, step
from remote_payload.agent.run.slurm.files import BEAT_EVERY, Attempt
from remote_payload.agent.run.slurm.going_on import has_new_checkpoint, is_command, what_to_resume
from remote_payload.agent.run.slurm.job import warning
from remote_payload.agent.run.slurm.look import TOLD
from remote_payload.agent.run.supervisor import SIGNALS, Supervisor
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.protocol import ExitRecord

EARLY = 90.0  # seconds: Slurm sends its signal up to a minute early, and its clock counts whole ones
ANSWER_LIMIT, ASK_AGAIN = 5.0, 0.5  # seconds for Slurm to say whether it ends the job
STOP = "stop"  # the note of ``gpurun stop``, with the grace


def batch(root: str, run_id: str) -> int:
    """Stays until the run is over, or Slurm ends this start of it. Gives the exit status, which Slurm shows: 0 for a run that succeeded."""
    paths, key = BoxPaths(root), sealed.take_key()
    run, mine = paths.run(run_id), attempt.this_attempt()
    launch = read_launch(run)
    if launch is None or mine is None:
        raise OSError("%s cannot be read, or this is no Slurm job" % run.launch)
    if slot.read(run) is not None or not attempt.take_over(run, mine):
        return 0  # it is over, or another job's
    daemon.guard(SIGNALS)
    secrets.sweep(paths)  # those of runs whose supervisor was killed on this node
    there = tuple(gpus.list_gpus() or ()) if launch.gpus else ()
    try:
        environment = secrets.place(run_id, sealed.unseal(run, key))
        return _supervise(
            BatchSupervisor(run, launch, Order(root, run.folder, NO_LOCK, _given(), there, environment), mine)
        )
    except BaseException:
        secrets.remove_here(run)  # no other process of this run comes to this node's memory
        raise


def _supervise(supervisor: "BatchSupervisor") -> int:
    try:
        supervisor.start()
        supervisor.watch()
        return supervisor.end()
    finally:
        supervisor.let_go()


def _given() -> Tuple[int, ...]:
    """The GPUs that Slurm gave to the job, by the numbers that it told; none where it names them otherwise (MIG)."""
    words = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return tuple(int(word) for word in words if word.isdigit())


class BatchSupervisor(Supervisor):
    """The supervisor of one start of a job."""

    # Slurm takes a job for over when its batch step is, and gives its GPUs to the next one. Clusters that track the processes of a job
    # by its cgroup end the payload then; others would leave it alone.
    PAYLOAD_DIES_WITH_US = True

    def __init__(self, run: RunPaths, launch: LaunchFile, order: Order, mine: Attempt) -> None:
        started = step.arguments(BoxPaths(order.root), run, launch)
        super().__init__(run, launch._replace(argv=started, time_limit=None), order)  # Slurm keeps the time
        self._whole_launch = launch
        self._mine = mine
        self._began = time.monotonic()
        self._began_on_disk = disk_clock(run.slurm)
        self._got_term = False  # from Slurm, or from anybody but ``gpurun stop``
        self._ended_by_slurm = False  # and not by its time limit: whether the job comes back is Slurm's decision
        self._goes_on = False  # the end of this start is not the end of the run
        self._taken = False  # by a later start
        self._resume: Optional[str] = None
        self._beating = threading.Event()

    # The start

    def start(self) -> None:
        """Starts the payload; at a second start of the job from the run's last checkpoint. Raises what keeps it from starting."""
        first = not os.path.lexists(self.run.exit_slot)
        self._slot = slot.allocate(self.run) if first else slot.reopen(self.run)
        if not first:
            files.forget(self.run, TOLD)
            run_folder.link_outputs(self.run, self.launch.outputs)
            events.append(
                self.run.events,
                "flag",
                name="restarted",
                message="Slurm has started the job again on %s" % self._mine.node,
            )
            self._resume = what_to_resume(self.run, self.launch)
        self._start_payload()

    def _environment(self) -> Dict[str, str]:
        found = super()._environment()
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        if given is not None and self.launch.gpus:
            found["CUDA_VISIBLE_DEVICES"] = given
        if self._resume is not None:
            found["GPURUN_RESUME"] = self._resume
        found.update(step.variables(self.launch, self._secrets))
        return found

    # The watch

    def watch(self) -> None:
        """As on a box; a thread shows the sign of life."""
        threading.Thread(target=self._beat, daemon=True).start()
        super().watch()

    def _beat(self) -> None:
        """The heartbeat. It also notices a later start, and a ``stop`` whose signal did not get through."""
        while not self._beating.wait(BEAT_EVERY):
            try:
                if not attempt.has(self.run, self._mine):
                    self._taken = True
                    return os.kill(os.getpid(), signal.SIGUSR1)
                files.touch_heartbeat(self.run)
            except OSError as error:  # the next one may get through
                print("heartbeat: %s" % error, file=sys.stderr)
            if files.is_noted(self.run, STOP) and self._ended_by_us is None:
                os.kill(os.getpid(), signal.SIGUSR1)

    def _obey(self, received: Optional[int]) -> None:
        if received not in (signal.SIGUSR1, signal.SIGTERM):
            return
        if self._taken:
            self._end_payload("signal", 0.0)
        elif received == signal.SIGUSR1 or files.is_noted(self.run, STOP):
            grace = files.noted_number(self.run, STOP, "grace")
            self._end_payload("cancelled", ending.needed_grace(self.run) if grace is None else grace)
        else:
            self._got_term = True
            self._signal_payload(signal.SIGTERM)
            self._understand_term()

    def _signal_payload(self, number: int) -> None:
        """To the program itself, on all its nodes."""
        if not step.is_step(self._whole_launch):
            return super()._signal_payload(number)
        try:
            slurm.signal_steps(self._mine.job, signal.Signals(number).name[3:])
        except SlurmError as error:
            print("signal: %s" % error, file=sys.stderr)
            super()._signal_payload(number)

    def _understand_term(self) -> None:
        """Whether it was the warning before the end of the time limit, or Slurm ends the job, or somebody else has sent it."""
        left = self._time_left()
        if left is not None and left <= warning(self._whole_launch) + EARLY:
            self._end_payload("timeout", max(ending.GRACE, left - ending.KILL_LIMIT))

    def _time_left(self) -> Optional[float]:
        """Seconds of this allocation that are left; None where it has no limit, or Slurm is ending the job already."""
        job = self._listed()
        if job is None:
            limit = self._whole_launch.time_limit
            return None if limit is None else limit - (time.monotonic() - self._began)
        if job.state in LASTING:
            return job.left
        self._note_ended_by_slurm()
        return None

    def _listed(self) -> Optional[Job]:
        """The job as Slurm has it; None where it does not answer, or answers with nothing, which says nothing of the job."""
        try:
            return slurm.job(self._mine.job)
        except SlurmError:
            return None

    def _note_ended_by_slurm(self) -> None:
        self._ended_by_slurm = True
        files.note(self.run, TOLD)

    # The end

    def _record_end(self, record: ExitRecord) -> None:
        """The end of the payload is the end of the run, unless the job may come back."""
        if self._ended_by_us is None and not self._ended_by_slurm and self._slurm_ends_it():
            self._note_ended_by_slurm()
        if self._taken:
            self._goes_on = True
        elif self._ended_by_us == "timeout":
            self._goes_on = not self._is_done(record) and self._may_go_on()
        elif self._ended_by_slurm:
            self._goes_on = not self._is_done(record)
        if not self._goes_on:
            super()._record_end(self._as_it_ended(record))

    def _slurm_ends_it(self) -> bool:
        """Whether Slurm ends the job: it sends TERM to every process of a job, and the program may have ended before ours is looked at.

        After a TERM Slurm has a moment to say so. Where it says nothing, the TERM is taken for its own: an end that was not meant is no
        success.
        """
        deadline = time.monotonic() + ANSWER_LIMIT
        told = self._got_term or signal.SIGTERM in (self._received, *signal.sigpending())
        while True:
            job = self._listed()
            if job is not None and (job.state not in LASTING or not told):
                return job.state not in LASTING
            if not told or time.monotonic() > deadline:
                return told and job is None
            time.sleep(ASK_AGAIN)

    def _is_done(self, record: ExitRecord) -> bool:
        """Whether the program has ended because its work is done, although it was told to end: of a recipe its exit code shows it."""
        return record.number == 0 and not is_command(self.run)

    def _as_it_ended(self, record: ExitRecord) -> ExitRecord:
        done = self._ended_by_us == "timeout" and self._is_done(record)
        self._exit = ExitRecord("exit", 0, record.at) if done else record
        return self._exit

    def _may_go_on(self) -> bool:
        return bool((self.launch.slurm or {}).get("requeue")) and has_new_checkpoint(self.run, self._began_on_disk)

    def end(self) -> int:
        """What is to be done when the payload has ended; the exit status."""
        if self._goes_on and not self._taken and self._ended_by_us == "timeout":
            self._requeue()
        if not self._goes_on:
            self.finish()
            return 0 if self._exit is not None and (self._exit.kind, self._exit.number) == ("exit", 0) else 1
        self._over.set()
        self._end_leftovers()
        secrets.remove_here(self.run)
        return 0

    def _requeue(self) -> None:
        """Into the queue again; where Slurm refuses that, the run has ended with its time."""
        events.append(
            self.run.events,
            "flag",
            name="requeued",
            message="the time limit is over: the run waits in Slurm's queue again",
        )
        self._end_leftovers()
        try:
            slurm.requeue(self._mine.job)
        except SlurmError as error:
            print("requeue: %s" % error, file=sys.stderr)
            assert self._exit is not None
            self._goes_on = False
            super()._record_end(self._exit)

    def let_go(self) -> None:
        """The last thing: no sign of life any more. The heartbeat of a later start stays."""
        self._beating.set()
        if self._taken or attempt.has(self.run, self._mine):
            files.remove_heartbeat(self.run)

    def _note_gpus(self, record: ExitRecord, why: Optional[Explanation]) -> None:
        """Slurm's administrators look after its GPUs."""

    def _release_gpus(self, survivors: Tuple[Process, ...]) -> None:
        """Slurm does."""
