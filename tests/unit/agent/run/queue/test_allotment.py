"""GPUs and the queue: the locks, files and processes are real; the GPUs are numbers."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from remote_payload.agent.box import badge, gpus, locks, processes
from remote_payload.agent.box.files import write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run import order, slot
from remote_payload.agent.run.queue import allotment, giving, health, room
from remote_payload.agent.run.queue import waiting as wait
from remote_payload.agent.run.queue.choice import Needs
from remote_payload.agent.run.queue.health import End
from remote_payload.agent.run.queue.waiting import Waiting
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.protocol import ExitRecord

pytestmark = pytest.mark.stand_in


def some(count, used=()):
    return [Gpu(n, f"GPU-{n}", "H100", 80 << 30, (used[n] if n < len(used) else 0) << 30, 0) for n in range(count)]


class Runs:
    """Runs whose supervisors are this test: alive while their lock is held."""

    def __init__(self, paths):
        self.paths, self.locks, self.processes = paths, {}, []

    def claim(self, name, paths=None):
        run = (paths or self.paths).run(f"{name}-20260102-142030-{os.urandom(2).hex()}")
        os.makedirs(run.code)
        self.locks[run.run_id] = locks.take_run(run)
        return run

    def submit(self, name, available, wanted=1, queue=False, paths=None):
        run = self.claim(name, paths)
        try:
            given = giving.enter(paths or self.paths, run, available, Needs(wanted), queue)
        except AgentError:
            self.kill(run)
            shutil.rmtree(run.folder)
            raise
        return run, [gpu.number for gpu in given]

    def kill(self, run):
        """Its supervisor, that is."""
        os.close(self.locks.pop(run.run_id))

    def end(self, run):
        slot.write(run, ExitRecord("exit", 0, 1.0), slot.allocate(run))
        self.kill(run)

    def process(self, run, names=""):
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env={"GPURUN_RUN_ID": run.run_id, "GPURUN_GPUS": names},
        )  # fmt: skip
        child.stdout.readline()
        self.processes.append(child)
        return child

    def close(self):
        for descriptor in self.locks.values():
            os.close(descriptor)
        for child in self.processes:
            child.communicate(timeout=20)

    def hidden(self, run):
        """A process of it that shows nothing but the badge."""
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env={},
            preexec_fn=lambda: badge.set_badge(run.run_id),
        )  # fmt: skip
        child.stdout.readline()
        self.processes.append(child)
        return child


@pytest.fixture
def runs(tmp_path):
    made = Runs(BoxPaths(str(tmp_path / "root")))
    yield made
    made.close()


def set_aside(paths, gpu):
    for run in ("first", "second"):
        health.note_end(paths, [gpu], End(run, False, health.DEVICE_ERROR, 1.0, "CUDA error: unknown error"))


def look(runs, run, available, wanted=1):
    return [gpu.number for gpu in Waiting(runs.paths, run, available, Needs(wanted)).look()[0]]


def test_a_run_gets_gpus_that_nobody_has_and_is_told_who_has_the_others(runs):
    first, given = runs.submit("first", some(3), 2)
    assert given == [0, 1]
    with pytest.raises(AgentError, match=f"held by {first.run_id}"):
        runs.submit("second", some(3), 2)
    assert runs.submit("third", some(3))[1] == [2]  # what the second could not use was not taken
    runs.end(first)
    assert runs.submit("fourth", some(3), 2)[1] == [0, 1]


def test_a_gpu_belongs_to_the_last_process_of_its_run(runs):
    run, _ = runs.submit("orphan", some(1))
    left = runs.process(run)
    runs.kill(run)
    with pytest.raises(AgentError, match=f"held by {run.run_id}"):
        runs.submit("next", some(1))
    left.communicate(timeout=20)
    assert runs.submit("next", some(1))[1] == [0]


def test_what_a_finished_run_could_not_end_keeps_the_gpu(runs):
    run, _ = runs.submit("over", some(1))
    left = runs.process(run)
    runs.end(run)
    with pytest.raises(AgentError, match="held by over"):
        runs.submit("next", some(1))
    left.communicate(timeout=20)
    assert runs.submit("next", some(1))[1] == [0]


def test_a_run_without_a_folder_or_below_another_root_is_seen_by_its_processes(runs, tmp_path):
    elsewhere = BoxPaths(str(tmp_path / "volume"))
    other, _ = runs.submit("other", some(3), paths=elsewhere)
    runs.process(other, "GPU-1")
    gone, _ = runs.submit("gone", some(3))
    runs.process(gone, "GPU-0")
    shutil.rmtree(gone.folder)
    assert runs.submit("next", some(3))[1] == [2]


@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 5)])
def test_a_gpu_whose_allotment_was_damaged_is_not_given_away(runs, damage):
    from remote_payload.agent.box.files import write_json

    run, given = runs.submit("first", some(2))
    write_json(run.owner, {"pid": 1 << 22, "start": 1, "gpus": given})
    damage(run.gpus)
    assert runs.submit("next", some(2))[1] == [1]


def test_first_come_first_served_whatever_the_clock_says_and_the_dead_are_passed_over(runs, monkeypatch):
    holder, _ = runs.submit("holder", some(1))
    clock = iter([500, 400, 300, 200])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    one, two, three = (runs.submit(name, some(1), queue=True)[0] for name in ("one", "two", "three"))
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(1))
    assert [each.run.run_id for each in allotment.waiting(runs.paths)] == [each.run_id for each in (one, two, three)]
    runs.end(holder)
    assert look(runs, two, some(1)) == []
    with pytest.raises(AgentError, match="waits for GPUs"):
        runs.submit("pushy", some(1))
    runs.kill(one)
    assert (look(runs, three, some(1)), look(runs, two, some(1))) == ([], [0])
    assert look(runs, three, some(1)) == []


def test_a_place_is_kept_though_its_file_is_removed(runs, monkeypatch):
    holder, _ = runs.submit("holder", some(1))
    one, two = (runs.submit(name, some(1), queue=True)[0] for name in ("one", "two"))
    mine = Waiting(runs.paths, one, some(1), Needs(1))
    os.unlink(one.gpus)
    assert mine.look() == ([], f"waiting for 1 GPU, held by {holder.run_id}")
    assert Waiting(runs.paths, two, some(1), Needs(1)).look() == ([], "waiting for 1 GPU, behind 1 run")


def test_two_never_get_one_gpu_though_the_lock_is_removed_between_them(runs, monkeypatch):
    @contextmanager
    def not_alone(paths, limit):
        yield True

    monkeypatch.setattr(giving, "_deciding", not_alone)
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(1))
    holder, _ = runs.submit("holder", some(1))
    queued = [runs.submit("q", some(1), queue=True)[0] for _ in range(6)]
    for module in (allotment, giving):
        monkeypatch.setattr(module, "waiting", lambda *_, **__: [])  # nor does anybody wait for his turn
    runs.end(holder)
    got = {}
    for _ in range(50):
        threads = [
            threading.Thread(target=lambda run=run: got.setdefault(run.run_id, look(runs, run, some(1))))
            for run in queued
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(filter(None, got.values()))) <= 1
        if any(got.values()):
            break
        got.clear()
    else:
        got[queued[0].run_id] = look(runs, queued[0], some(1))
    assert list(filter(None, got.values())) == [[0]]


def test_a_gpu_that_a_stranger_uses_is_taken_last_and_by_the_queue_only_after_a_while(runs, monkeypatch):
    _, given = runs.submit("holder", some(2, used=[30]))
    assert given == [1]
    queued, _ = runs.submit("queued", some(2, used=[30]), queue=True)
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(2, used=[30]))
    mine = Waiting(runs.paths, queued, some(2), Needs(1))
    given, why = mine.look()
    assert given == [] and "GPU 0" in why and "not gpurun's" in why
    monkeypatch.setattr(wait, "PATIENCE", 0.0)
    assert [gpu.number for gpu in mine.look()[0]] == [0]


def test_a_stranger_that_goes_away_is_not_waited_for_any_longer(runs, monkeypatch):
    queued, given = runs.submit("queued", some(1, used=[30]), queue=True)
    assert given == []
    mine = Waiting(runs.paths, queued, some(1), Needs(1))
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(1, used=[30]))
    assert mine.look()[0] == []
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(1, used=[2]))
    assert [gpu.number for gpu in mine.look()[0]] == [0]


def test_a_look_that_fails_ends_nothing(runs, monkeypatch):
    _, _ = runs.submit("holder", some(1))
    queued, _ = runs.submit("queued", some(1), queue=True)
    mine = Waiting(runs.paths, queued, some(1), Needs(1))
    os.unlink(queued.gpus)
    with monkeypatch.context() as full:
        full.setattr(allotment, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert mine.look() == ([], "waiting for 1 GPU: No space left on device")
    assert "held by" in mine.look()[1]


def test_a_living_run_of_which_nobody_knows_the_gpus_any_more_has_all_until_it_ends(runs):
    first, _ = runs.submit("first", some(2))
    child = runs.hidden(first)
    runs.kill(first)
    with pytest.raises(AgentError, match=f"held by {first.run_id}"):
        runs.submit("second", some(2), 2)
    os.unlink(first.gpus)
    assert allotment.holders(runs.paths, some(2)) == {"GPU-0": first.run_id, "GPU-1": first.run_id}
    known = runs.process(first, "GPU-0")
    assert allotment.holders(runs.paths, some(2)) == {"GPU-0": first.run_id}
    for each in (child, known):
        each.kill()
        each.wait()
    assert allotment.holders(runs.paths, some(2)) == {}


def test_a_living_run_that_asked_for_no_gpu_has_none_though_its_files_are_gone(runs):
    run = runs.claim("first")
    with open(run.launch, "w") as file:
        file.write('{"gpus": 0}')
    runs.hidden(run)
    runs.kill(run)
    assert allotment.holders(runs.paths, some(2)) == {}


def test_whoever_hands_on_the_turn_wakes_the_first_that_waits_and_nobody_else(runs, monkeypatch):
    gpu = some(1)
    runs.submit("a", gpu)
    waiters = [runs.submit(name, gpu, queue=True)[0] for name in ("b", "c")]
    for run in waiters:
        supervisor = processes.read(runs.process(run).pid)
        write_json(run.owner, {"pid": supervisor.pid, "start": supervisor.start, "boot_id": processes.boot_id()})
    woken = []
    monkeypatch.setattr(processes, "send", lambda process, number: woken.append((process.pid, number)))
    allotment.wake_next(runs.paths)
    runs.kill(waiters[0])
    os.remove(waiters[0].owner)
    allotment.wake_next(runs.paths)
    assert woken == [(child.pid, signal.SIGCHLD) for child in runs.processes]


def test_nobody_to_wake_is_no_error(runs):
    run, _ = runs.submit("a", some(1))
    allotment.wake_next(runs.paths)
    assert allotment.read(run).given


def test_a_gpu_that_was_set_aside_is_given_to_nobody_and_told(runs, monkeypatch):
    set_aside(runs.paths, some(2)[0])
    assert runs.submit("first", some(2))[1] == [1]
    with pytest.raises(AgentError, match="held by first"):
        runs.submit("second", some(2))
    queued, given = runs.submit("queued", some(2), queue=True)
    assert given == []
    why = Waiting(runs.paths, queued, some(2), Needs(1)).look()[1]
    assert "held by first" in why and "GPU 0 is set aside: first and second failed on it" in why


def test_a_run_that_only_a_gpu_that_was_set_aside_could_serve_says_what_ends_it(runs, monkeypatch):
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(1))
    set_aside(runs.paths, some(1)[0])
    with pytest.raises(AgentError, match="GPU 0 is set aside") as refused:
        runs.submit("first", some(1))
    assert "gpurun hosts use-gpu HOST 0" in refused.value.hint
    queued, _ = runs.submit("queued", some(1), queue=True)
    mine = Waiting(runs.paths, queued, some(1), Needs(1))
    assert "gpurun hosts use-gpu HOST 0" in mine.look()[1]
    assert health.use_again(runs.paths, 0)
    assert [gpu.number for gpu in mine.look()[0]] == [0]


def test_a_gpu_of_a_run_that_ends_is_not_free_before_its_supervisor_has_looked_at_the_end(runs):
    run, _ = runs.submit("ending", some(1))
    slot.write(run, ExitRecord("exit", 1, 1.0), slot.allocate(run))
    assert allotment.holders(runs.paths, some(1)) == {"GPU-0": run.run_id}
    os.unlink(run.gpus)  # as its supervisor does, which then still hashes the outputs
    assert allotment.holders(runs.paths, some(1)) == {}


def test_a_gpu_is_chosen_by_the_memory_that_the_job_asks_for(runs, monkeypatch):
    small, used, free = (
        Gpu(0, "a", "T4", 16 << 30, 0, 0),
        Gpu(1, "b", "L4", 24 << 30, 2 << 30, 0),
        Gpu(2, "c", "L4", 24 << 30, 0, 0),
    )
    run = runs.claim("large")
    assert giving.enter(runs.paths, run, [small, used, free], Needs(1, vram=23 << 30), True) == [free]
    second = runs.claim("second")
    monkeypatch.setattr(wait, "PATIENCE", 0.0)
    monkeypatch.setattr(gpus, "list_gpus", lambda: [small, used, free])
    assert giving.enter(runs.paths, second, [small, used, free], Needs(1, vram=23 << 30), True) == []
    mine = Waiting(runs.paths, second, [small, used, free], Needs(1, vram=23 << 30))
    assert mine.look() == ([], "waiting for 1 GPU: the memory of GPU 1 is in use by something that is not gpurun's")
    assert mine.look()[0] == []  # however long it waits: it would run out of memory
    monkeypatch.setattr(gpus, "list_gpus", lambda: [small, used._replace(memory_used=0), free])
    assert [gpu.number for gpu in mine.look()[0]] == [1]


def test_a_gpu_that_does_not_answer_is_waited_for_by_name(runs, monkeypatch):
    runs.submit("holder", some(2))
    queued, _ = runs.submit("queued", some(1), queue=True)
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(2)[:1])
    assert Waiting(runs.paths, queued, some(2), Needs(1)).look() == ([], "waiting for 1 GPU: GPU 1 does not answer")


def test_a_run_waits_for_room_on_the_disk_beside_what_running_ones_will_still_write(runs, monkeypatch):
    gb = 10**9
    monkeypatch.setattr(room, "free_bytes", lambda folder: 100 * gb)
    first = runs.claim("first")
    order.write_launch(first, order.LaunchFile(("true",), {}, gpus=1, disk=80 * gb))
    assert giving.enter(runs.paths, first, some(2), Needs(1, disk=80 * gb), True) != []
    monkeypatch.setattr(gpus, "list_gpus", lambda: some(2))
    second = runs.claim("second")
    assert giving.enter(runs.paths, second, some(2), Needs(1, disk=30 * gb), True) == []
    mine = Waiting(runs.paths, second, some(2), Needs(1, disk=30 * gb))
    assert mine.look() == (
        [],
        "waiting for 1 GPU: by its forecast it writes 30.0 GB to the disk, 100.0 GB are free, of which running runs will take 80.0 GB;"
        " gpurun clean shows what may go",
    )
    runs.end(first)
    os.unlink(first.gpus)
    assert mine.look()[0] != []


def test_what_a_resumed_run_begins_with_it_need_not_write_again(runs, monkeypatch):
    mb = 1 << 20
    monkeypatch.setattr(room, "free_bytes", lambda folder: 6 * mb)
    run = runs.claim("resumed")
    needs = Needs(1, disk=10 * mb)
    assert "writes 0.0 GB" in room.lacking(runs.paths, run, needs, ())
    os.makedirs(run.outputs)
    with open(os.path.join(run.outputs, "checkpoint"), "wb") as file:
        file.write(os.urandom(5 * mb))
    assert room.lacking(runs.paths, run, needs, ()) is None
