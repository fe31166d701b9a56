"""A run goes on on another box: with what was brought home before its own box was killed, and its disk deleted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_pretrain_job import TINY
from tests.e2e.test_pretrain_job import project as project
from tests.support.agent import wait_until
from tests.support.boxes.mortal_box import MortalBox
from tests.support.cli import Gpurun


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[MortalBox, MortalBox]]:
    made = MortalBox(tmp_path / "box-a"), MortalBox(tmp_path / "box-b")
    yield made
    for box in made:
        box.end()


def submit(gpurun: Gpurun, file: Path, box: MortalBox, *words: str) -> str:
    run: str = gpurun.json("submit", str(file), "--host", box.address, *words)["runs"][0]["run_id"]
    return run


def events(gpurun: Gpurun, run_id: str, kind: str) -> list[dict[str, Any]]:
    lines = (gpurun.home / "runs" / run_id / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


def losses(gpurun: Gpurun, run_id: str) -> dict[int, float]:
    gpurun("logs", run_id, "-f")
    return {event["step"]: event["loss"] for event in events(gpurun, run_id, "step")}


STEPS = {**TINY, "settings.max_steps": 40, "settings.evaluation.every_steps": 20}


def test_a_recipe_whose_box_died_in_the_middle_trains_on_elsewhere_bit_for_bit(
    gpurun: Gpurun, project: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, other = boxes
    words = [word for key, value in STEPS.items() for word in ("--set", f"{key}={value}")]
    words += ["--set", f"environment.interpreter={sys.executable}", "--set", "outputs=null"]
    moved = submit(gpurun, project, box, *words)
    straight = submit(gpurun, project, other, *words)
    keeping = gpurun.start("keep", moved, "--json")
    home = gpurun.home / "runs" / moved / "outputs" / "checkpoints"
    wait_until(lambda: list(home.glob("step-*/manifest.json")), 120)
    seen = gpurun.json("status", moved)["status"]
    box.die()
    assert seen["phase"] == "running", "it had ended before its box was killed"

    told = gpurun("resume", moved, "--host", other.address)
    assert "it moves there" in told.stderr and "goes on from step-" in told.stderr
    new = gpurun.json("list")["runs"][-1]
    assert new["parent"] == moved and new["host"] == other.address
    kept = {run["run_id"]: run for run in json.loads(keeping.communicate(timeout=200)[0])["runs"]}
    assert kept.keys() == {moved, new["run_id"]}, "it went on with the new run"
    assert kept[new["run_id"]]["status"]["outcome"] == "succeeded"
    after, expected = losses(gpurun, new["run_id"]), losses(gpurun, straight)
    assert 0 < len(after) < 40 and after == {step: expected[step] for step in after} and max(after) == 40
    weights = "models/best/model.safetensors"
    first, second = gpurun.home / "runs" / new["run_id"] / "outputs", Path(other.paths.run(straight).outputs)
    assert (first / weights).read_bytes() == (second / weights).read_bytes()


NANO = """
import os, pathlib, time
import torch

torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1))
optimizer, begin = torch.optim.AdamW(model.parameters(), lr=0.01), 0
if "GPURUN_RESUME" in os.environ:
    saved = torch.load("out/ckpt.pt", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    begin = saved["iter_num"]
for step in range(begin + 1, 41):
    x = torch.randn(4, 8)
    loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", step, loss.item().hex(), flush=True)
    if step % 5 == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "iter_num": step}
        torch.save(state, "out/ckpt.pt")
    while step == 17 and os.environ.get("WAITS") and "GPURUN_RESUME" not in os.environ:
        time.sleep(0.05)
"""
TRAINER = """
import os, time
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

torch.set_num_threads(1)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.line, self.drop = nn.Linear(8, 1), nn.Dropout(0.3)

    def forward(self, x, labels=None):
        return {"loss": ((self.line(self.drop(x)) - labels) ** 2).mean()}


class Printed(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **more):
        if "loss" in logs:
            print("loss", state.global_step, float(logs["loss"]).hex(), flush=True)

    def on_step_end(self, args, state, control, **more):
        while state.global_step == 17 and os.environ.get("WAITS") and "GPURUN_RESUME" not in os.environ:
            time.sleep(0.05)


torch.manual_seed(1)
data = [{"x": row, "labels": row.sum(0, keepdim=True)} for row in torch.randn(64, 8)]
arguments = TrainingArguments(
    output_dir="out", max_steps=40, save_steps=5, logging_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to=[],
    disable_tqdm=True, save_total_limit=2, seed=3,
)
trainer = Trainer(model=Tiny(), args=arguments, train_dataset=data, callbacks=[Printed()])
resume = "GPURUN_RESUME" in os.environ
trainer.train(resume_from_checkpoint=resume or None)
"""
WRITTEN = {"nano": "out/ckpt.pt", "trainer": "out/checkpoint-15"}
LAST = {"nano": ["out/ckpt.pt"], "trainer": ["out/checkpoint-40/model.safetensors", "out/checkpoint-40/optimizer.pt"]}


def printed(log: str) -> dict[int, str]:
    return {int(words[1]): words[2] for line in log.splitlines() if (words := line.split())[:1] == ["loss"]}


def test_programs_with_checkpoints_of_their_own_train_on_elsewhere_bit_for_bit(
    gpurun: Gpurun, job: Any, tmp_path: Path, boxes: tuple[MortalBox, MortalBox]
) -> None:
    """nanoGPT's ``ckpt.pt``, which is written in place, and the real Trainer's ``checkpoint-N``."""
    box, other = boxes
    programs = {"nano": NANO, "trainer": TRAINER}
    fields = {
        "command": ["python", "main.py"], "outputs": ["out"], "environment": {"interpreter": sys.executable, "variables": {"WAITS": "1"}},
        "sweep": {"environment.variables.SEED": ["1"]},
    }  # fmt: skip
    rules = {"nano": {"checkpoints": {"pattern": "out/ckpt.pt", "complete_when": "1s"}}, "trainer": {}}
    runs = {
        name: submit(gpurun, job(program, name=name, **fields, **rules[name]), box)
        for name, program in programs.items()
    }
    straight = {}
    for name, program in programs.items():  # the same without gpurun and without a break
        folder = tmp_path / f"straight-{name}"
        (folder / "out").mkdir(parents=True)
        ended = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
        straight[name] = printed(ended.stdout)

    def is_home(name: str) -> bool:
        gpurun("fetch", runs[name], check=None)
        return (gpurun.home / "runs" / runs[name] / "outputs" / WRITTEN[name]).exists()

    for name in programs:
        wait_until(lambda name=name: is_home(name), 90)
        gpurun("logs", runs[name])
    (tmp_path / "project-nano" / "main.py").write_text("print('edited since')")
    box.die()
    for name, run_id in runs.items():
        told = gpurun("resume", run_id, "--host", other.address)
        assert f"goes on from {WRITTEN[name]}, which is home" in told.stderr, told.stderr
        assert ("--code here takes what is here now" in told.stderr) == (name == "nano")
        assert "no file of the code names" not in told.stderr
    listed = gpurun.json("list")["runs"]
    for name, run_id in runs.items():
        (old,), (new,) = ([run for run in listed if run[field] == run_id] for field in ("run_id", "parent"))
        assert old["went_on_as"] == new["run_id"] and new["host"] == other.address
        assert new["experiment"] == old["experiment"] == name and new["submission"] == old["submission"]
        both = gpurun("logs", run_id, "-f")  # the old one's from this machine, then the new one's
        assert f"{run_id} went on as {new['run_id']}" in both.stderr
        part = printed(gpurun("logs", new["run_id"]).stdout)
        assert min(part) == 16 and max(part) == 40, "it did not begin behind its checkpoint"
        assert printed(both.stdout) == straight[name]
        for path in LAST[name]:
            moved = Path(other.paths.run(new["run_id"]).outputs, path).read_bytes()
            assert moved == (tmp_path / f"straight-{name}" / path).read_bytes(), path
    rows = gpurun("list").stdout.splitlines()
    assert [row.split()[0] for row in rows[1:]] == [runs["nano"], "└", runs["trainer"], "└"]
    assert rows[1].count("went on elsewhere") == 1


COUNTS = """
import os, pathlib, time
saved = pathlib.Path("out/ckpt.pt")
begin = int(saved.read_text()) if "GPURUN_RESUME" in os.environ else 0
for step in range(begin + 1, begin + 4):
    print("loss", step, "0", flush=True)
    saved.write_text(str(step))
pathlib.Path("out/notes.txt").write_text(pathlib.Path("data/text").read_text())
while "GPURUN_RESUME" not in os.environ:
    time.sleep(0.05)
"""


def test_a_run_whose_boxes_both_live_takes_along_what_is_not_home_and_none_of_it_stays_here(
    gpurun: Gpurun, job: Any, boxes: tuple[MortalBox, MortalBox]
) -> None:
    box, other = boxes
    file = job(
        COUNTS,
        outputs=["out"],
        data=["data/text"],
        price_per_hour=1.5,
        cost_limit=3.0,
    )
    (file.parent / "data").mkdir()
    (file.parent / "data" / "text").write_text("first")
    run_id = submit(gpurun, file, box)
    priced = ["--host", other.address, "--set", "price_per_hour=2"]
    assert "is not over (running)" in gpurun("resume", run_id, *priced, check=2).stderr
    wait_until(Path(box.paths.run(run_id).outputs, "out", "notes.txt").exists)
    gpurun("stop", run_id, "--grace", "0")
    asked = gpurun.json("resume", run_id, "--host", other.address, check=2)["error"]
    assert "needs the price of the new box" in asked["message"] and "--set price_per_hour=N" in asked["hint"]

    (file.parent / "main.py").unlink()
    told = gpurun("resume", run_id, *priced)
    assert "has not what the job names any more" in told.stderr
    assert "goes on from out/ckpt.pt, from ssh -p" in told.stderr and "1 file (main.py)" in told.stderr
    first = gpurun.json("list")["runs"][-1]
    assert printed(gpurun("logs", first["run_id"], "-f").stdout) == {4: "0", 5: "0", 6: "0"}
    assert not list((gpurun.home / "runs" / run_id).rglob("ckpt.pt")), "it is kept on this machine"
    assert not [path for path in Path(other.paths.data("")).iterdir() if "outputs" in path.name]

    (file.parent / "main.py").write_text(COUNTS.replace('0", flush', '1", flush'))
    (file.parent / "data" / "text").write_text("second")
    told = gpurun("resume", run_id, *priced, "--code", "here")
    assert "data/text changed here after" in told.stderr
    second = gpurun.json("list")["runs"][-1]
    assert printed(gpurun("logs", second["run_id"], "-f").stdout) == {4: "1", 5: "1", 6: "1"}
    assert Path(other.paths.run(second["run_id"]).outputs, "out", "notes.txt").read_text() == "second"

    box.die()
    said = gpurun.json("resume", run_id, *priced, check=2)["error"]
    assert "is on this machine, and its old box has none or does not answer" in said["message"]
    assert len(gpurun.json("list")["runs"]) == 3
