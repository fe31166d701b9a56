"""GPUs, of which there are none here: what NVML would say is read from a file. Everything else is real."""

import json
import os
import shutil
import signal

import pytest

from remote_payload.agent.box import processes
from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import volatile_folder
from runner.domain.errors import BoxNotReady, GpuBusy
from tests.support.agent import launch, log_of, run_id, running_agent, status, wait_until


@pytest.fixture
def two_gpus(tmp_path):
    place = tmp_path / "gpus.json"
    row = {"name": "H100", "memory_total": 80 << 30, "memory_used": 0, "utilisation": 0}
    place.write_text(json.dumps([{"number": n, "uuid": f"GPU-{os.urandom(6).hex()}", **row} for n in range(2)]))
    return str(place)


@pytest.mark.stand_in
def test_two_runs_never_share_a_gpu_and_the_third_is_told_who_has_them(home, two_gpus):
    first, second = run_id("first"), run_id("second")
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        for run in (first, second):
            launch(agent, ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES {gpus}; exec sleep 60"], run, gpus=1)
        assert [status(agent, run)["gpus"] for run in (first, second)] == [[0], [1]]
        with pytest.raises(GpuBusy, match=f"held by {first}, {second}"):
            launch(agent, ["true"], gpus=1)
        with pytest.raises(BoxNotReady, match="asks for 3 GPUs, the box has 2"):
            launch(agent, ["true"], gpus=3)
        agent.call("stop", {"run_id": first, "grace": 1})
        third = launch(agent, ["sleep", "60"], gpus=1)
        assert third["status"]["gpus"] == [0]
        for run in (second, third["status"]["run_id"]):
            agent.call("stop", {"run_id": run, "grace": 1})
        assert log_of(agent, second) == b"1 1\n"


@pytest.mark.stand_in
def test_queued_runs_start_in_their_order_as_gpus_come_free(home, two_gpus):
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        holder = launch(agent, ["sleep", "60"], gpus="all")["status"]["run_id"]
        queued = [run_id(name) for name in ("one", "two", "three")]
        for run in queued:
            assert (
                launch(agent, ["sleep", "60"], run, gpus="all", queue=True, secrets={"A": "b"})["status"]["phase"]
                == "prepared"
            )
        wait_until(lambda: holder in (status(agent, queued[0])["evidence"] or ""))
        cancelled = agent.call("stop", {"run_id": queued[1]})
        assert cancelled["status"]["outcome"] == "cancelled"
        agent.call("stop", {"run_id": holder, "grace": 1})
        wait_until(lambda: status(agent, queued[0])["phase"] == "running")
        assert status(agent, queued[2])["phase"] == "prepared"
        agent.call("stop", {"run_id": queued[0], "grace": 1})
        wait_until(lambda: status(agent, queued[2])["phase"] == "running")
        assert status(agent, queued[2])["gpus"] == [0, 1]
        agent.call("stop", {"run_id": queued[2], "grace": 1})


@pytest.mark.stand_in
def test_the_payload_of_a_killed_supervisor_keeps_its_gpu_until_it_is_stopped(home, paths, two_gpus):
    orphan, queued = run_id("orphan"), run_id("queued")
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        launch(agent, ["sleep", "300"], orphan, gpus="all")
        os.kill(read_json(paths.run(orphan).owner)["pid"], signal.SIGKILL)
        wait_until(lambda: status(agent, orphan)["orphaned"])
        with pytest.raises(GpuBusy, match=f"held by {orphan}"):
            launch(agent, ["true"], gpus=1)
        launch(agent, ["sleep", "300"], queued, gpus=1, queue=True)
        wait_until(lambda: orphan in (status(agent, queued)["evidence"] or ""))
        agent.call("stop", {"run_id": orphan, "grace": 1})
        wait_until(lambda: status(agent, queued)["phase"] == "running")
        agent.call("stop", {"run_id": queued, "grace": 1})


@pytest.mark.stand_in
def test_when_dev_shm_is_emptied_runs_go_on_waiting_in_their_order_and_no_gpu_is_given_twice(home, paths, two_gpus):
    first, *queued = (run_id(name) for name in ("first", "one", "two"))
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        launch(agent, ["sleep", "300"], first, gpus="all")
        for run in queued:
            launch(agent, ["sleep", "300"], run, gpus="all", queue=True, secrets={"HF_TOKEN": "hf_x"})
        wait_until(lambda: "behind 1 run" in (status(agent, queued[1])["evidence"] or ""))
        shutil.rmtree(volatile_folder())
        with pytest.raises(GpuBusy):
            launch(agent, ["true"], gpus=1)
        assert [status(agent, run)["phase"] for run in (first, *queued)] == ["running", "prepared", "prepared"]
        for ended, begins in zip((first, *queued), queued, strict=False):
            agent.call("stop", {"run_id": ended, "grace": 1})
            wait_until(lambda run=begins: status(agent, run)["phase"] == "running")
        agent.call("stop", {"run_id": queued[1], "grace": 1})


@pytest.mark.stand_in
def test_a_place_in_the_queue_is_that_of_the_claim_though_the_supervisor_stalls(home, paths, two_gpus):
    holder, stalled, later = (run_id(name) for name in ("holder", "stalled", "later"))
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        launch(agent, ["sleep", "300"], holder, gpus="all")
        launch(agent, ["sleep", "300"], stalled, gpus="all", queue=True)
        supervisor = read_json(paths.run(stalled).owner)["pid"]
        os.kill(supervisor, signal.SIGSTOP)  # before it has looked for the first time, or soon after
        launch(agent, ["sleep", "300"], later, gpus="all", queue=True)
        agent.call("stop", {"run_id": holder, "grace": 1})
        wait_until(lambda: "behind 1 run" in (status(agent, later)["evidence"] or ""))
        os.kill(supervisor, signal.SIGCONT)
        wait_until(lambda: status(agent, stalled)["phase"] == "running")
        assert status(agent, later)["phase"] == "prepared"
        for run in (later, stalled):
            agent.call("stop", {"run_id": run, "grace": 1})


@pytest.mark.stand_in
def test_a_waiting_run_that_somebody_terminates_was_not_cancelled_by_us(home, paths, two_gpus):
    holder, run = run_id("holder"), run_id("ended")
    with running_agent(home, GPURUN_FAKE_GPUS=two_gpus) as agent:
        launch(agent, ["sleep", "300"], holder, gpus="all")
        launch(agent, ["true"], run, gpus=1, queue=True)
        owner = read_json(paths.run(run).owner)
        os.kill(owner["pid"], signal.SIGTERM)
        wait_until(lambda: processes.is_alive(owner["pid"], owner["start"]) is None)
        seen = status(agent, run)
        assert (seen["outcome"], seen["cause"]) == ("failed", "signal 15")
        agent.call("stop", {"run_id": holder, "grace": 1})
