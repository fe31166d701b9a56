"""Checkpoints of a program of one's own, over a real sshd: listed and fetched while it runs, gone on from after it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.agent import wait_until
from tests.support.cli import Gpurun

# As the Trainer writes: the state last. The second checkpoint is never finished, nor is the file beside it.
PROGRAM = """
import json, os, pathlib, time
went_on = os.environ.get("GPURUN_RESUME")
print("from", went_on, sorted(each.name for each in pathlib.Path("out").iterdir()), flush=True)
if went_on is None:
    for step in (5, 6):
        folder = pathlib.Path(f"out/checkpoint-{step}")
        folder.mkdir()
        (folder / "optimizer.pt").write_bytes(os.urandom(5000))
        if step == 5:
            (folder / "trainer_state.json").write_text(json.dumps({"global_step": 5, "log_history": [{"step": 5, "loss": 1.5}]}))
    with open("out/ckpt.pt", "wb") as file:
        file.write(b"PK\\x03\\x04 half of what torch.save writes")
        file.flush()
        time.sleep(600)
"""


def test_a_running_program_is_fetched_and_resumed_from_what_it_has_completed(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job(PROGRAM, outputs=["out"], checkpoints={"complete_when": "1s"}))
    listed: dict[str, Any] = {}

    def is_listed() -> bool:
        listed.update(gpurun.json("checkpoints"))
        return bool(listed["checkpoints"]) and "its end is missing" in str(listed["unfinished"])

    wait_until(is_listed)
    (found,) = listed["checkpoints"]
    assert (found["name"], found["step"], found["metrics"]) == ("out/checkpoint-5", 5, {"loss": 1.5})
    assert found["resumable"] and found["on_box"] and not found["here"]
    why = {each["path"]: each["why"] for each in listed["unfinished"]}
    assert why == {
        "out/checkpoint-6": "there is no trainer_state.json",
        "out/ckpt.pt": "ckpt.pt: its end is missing",
    }
    fetched = gpurun.json("fetch")
    assert not fetched["complete"]
    home, box = Path(fetched["into"]), gpurun.box_run(run_id) / "outputs"
    here = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.name[0] != ".")
    assert here == ["out/checkpoint-5/optimizer.pt", "out/checkpoint-5/trainer_state.json"]
    assert all((home / name).read_bytes() == (box / name).read_bytes() for name in here)
    assert gpurun.json("checkpoints")["checkpoints"][0]["here"]
    shown = gpurun("checkpoints").stdout
    assert "box and here" in shown and "its end is missing" in shown
    gpurun("stop", "--grace", "0")
    gpurun("resume", run_id)
    assert gpurun("logs", "-f").stdout == "from out/checkpoint-5 ['checkpoint-5']\n"
