"""GPUs, of which there are none here: what NVML would say is read from a file. The locks are real."""

import json
import os

import pytest

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
