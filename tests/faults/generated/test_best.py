"""What ``models/best`` holds is what the metrics and the card beside it describe: the best evaluation's weights, or they say in words
which others they are and why. Whatever was evaluated, kept, lost for want of disk, stopped, killed and resumed before.
"""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from remote_payload.train.errors import Stopped, TrainingError
from remote_payload.train.folders import read_manifest
from remote_payload.train.loop.loop import train
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.results.causal_results import CausalResults
from remote_payload.train.run import Run
from tests.support.models.tiny_models import tiny_model
from tests.support.models.toy_training import ToyTask, toy_run
from tests.support.trials import trials

STEPS = 12


class Killed(BaseException):
    """Stands for a process that is killed: nobody on the way catches it."""


class Accident:
    """What happens to one process, and where: a signal or a death in a step, in an evaluation, in a save; a disk that is full at steps."""

    def __init__(self, chance: random.Random, last: bool) -> None:
        self.last = last
        self.kind = "nothing" if last else chance.choice(("nothing", "stop", "kill", "kill"))
        self.place = chance.choice(("step", "evaluation", "checkpoint", "model"))
        self.step = chance.randint(1, STEPS)
        self.full = {step for step in range(STEPS + 1) if chance.random() < 0.3} if chance.random() < 0.7 else set()

    def __str__(self) -> str:
        happens = self.kind if self.kind == "nothing" else f"{self.kind} at step {self.step} in the {self.place}"
        return f"{happens}, disk full at steps {sorted(self.full)}"

    def pass_by(self, place: str, step: int) -> None:
        if (place, step) == (self.place, self.step):
            if self.kind == "kill":
                raise Killed
            if self.kind == "stop":
                os.kill(os.getpid(), signal.SIGTERM)

    def write(self, place: str, step: int) -> None:
        self.pass_by(place, step)
        if step in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


class Figures(ToyTask):
    """Training is real; what an evaluation finds is given by its step."""

    def __init__(self, run: Run, figures: list[float], accident: Accident, at: int) -> None:
        super().__init__(run)
        self.figures, self.accident, self.at = figures, accident, at

    def loss(self, model: Any, micro: Any) -> tuple[Tensor, Tensor]:
        if model.training:  # once a step, which is one micro-batch here
            self.at += 1
            self.accident.pass_by("step", self.at)
        tensors = micro.tensors
        logits = model.network(input_ids=tensors["ids"], use_cache=False).logits.float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tensors["labels"].flatten(), ignore_index=-100, reduction="sum"
        )
        return loss, (tensors["labels"] != -100).sum()

    def evaluate(self, model: Any, size: int) -> dict[str, float]:
        self.accident.pass_by("evaluation", self.at)
        return {"loss": self.figures[self.at], "tokens": -self.figures[self.at]}


class Tokenizer:
    """Stands for the tokenizer: the one file of it is written in the middle of every model folder."""

    eos_token_id = 0

    def __init__(self, accident: Accident) -> None:
        self.accident, self.step = accident, 0

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1]}

    def save_pretrained(self, folder: str) -> None:
        name = Path(folder).name.removeprefix(".tmp-")
        if name.startswith("step-"):
            self.accident.write("checkpoint", int(name.removeprefix("step-")))
        else:
            self.accident.write("model", self.step)
        (Path(folder) / "tokenizer.json").write_text("{}")


class History:
    """Processes of one run, each going on from what the one before has left; all that was said and done, for a failure's message."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.figures = [chance.choice((math.nan, *(chance.randint(1, 9) for _ in range(8)))) for _ in range(STEPS + 1)]
        self.metric = chance.choice(("loss", "tokens"))
        self.keeps = (
            chance.random() < 0.5
        )  # the model at each best, as sft does; otherwise only at the end, as finetune does
        self.checkpoint = {"every_steps": chance.choice((1, 2, 3, 5)), "at_start": chance.random() < 0.5}
        self.checkpoint["keep"] = chance.choice((1, 2, None))
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.said = [f"{self.metric} of {self.figures}, keeps the model: {self.keeps}, checkpoints {self.checkpoint}"]

    def process(self, accident: Accident) -> str:
        """One process; how it ended."""
        evaluation = {
            "every_steps": self.chance.choice((1, 2, 3)),
            "at_start": self.chance.random() < 0.7,
            "metric": self.metric,
            "patience": self.chance.choice((0, 0, 3)),
        }
        settings = {"epochs": STEPS / 3, "evaluation": evaluation, "checkpoint": self.checkpoint}
        run = toy_run(self.folder, settings, resume="auto")
        run.settings.train = "toy.jsonl"  # what the card calls the data
        model, tokenizer = CausalLoss(tiny_model("llama")), Tokenizer(accident)
        results = CausalResults(run, model, tokenizer, None, torch.float32, {"chat": False}, [])  # type: ignore[arg-type]
        task = Figures(run, self.figures, accident, self._goes_on_from(run))

        def remember(metrics: dict[str, float], progress: Any) -> None:
            tokenizer.step = progress.step
            self.weights[progress.step] = {name: value.clone() for name, value in model.network.state_dict().items()}

        ended = "finished"
        try:
            outcome = train(
                run, model, task,
                on_best=results.keep_best if self.keeps else None,
                on_evaluation=remember,
                on_stop=lambda outcome, clock: results.finish_stopped(outcome, clock, [], []),
                extras=results.describe_checkpoint,
            )  # fmt: skip
            if accident.last:
                accident.full.clear()
            results.restore_best(outcome.progress)
            results.finish(outcome, None, [], [], smoke=False)
            self.evaluations = outcome.progress.evaluations
        except Killed:
            ended = "killed"
        except Stopped:
            ended = "stopped"
        except TrainingError as error:
            assert "models/best could not be written" in str(error), error
            ended = "no room"
        run.telemetry.close()
        self.said.append(f"{evaluation}: {accident}: {ended} after step {task.at}")
        return ended

    def _goes_on_from(self, run: Run) -> int:
        from remote_payload.train.state.checkpoint import find_checkpoint

        found = find_checkpoint("auto", run.checkpoints)
        return int(found.name.removeprefix("step-")) if found else 0

    def check(self, ended: str) -> str:
        """The invariant; what state the folder is in."""
        best, said = self.folder / "outputs" / "models" / "best", "\n".join(self.said)
        if read_manifest(best, hashes=True) is None:
            assert ended != "finished", said
            return "nothing"
        metrics, about = (json.loads((best / name).read_text()) for name in ("metrics.json", "gpurun.json"))
        card, step = (best / "README.md").read_text(), metrics["step"]
        kept, there = self.weights[step], load_file(best / "model.safetensors")
        assert all(torch.equal(there[name], kept[name]) for name in there), f"not the weights of step {step}\n{said}"
        assert about["step"] == step and f"at step {step}, epoch" in card, said
        assert metrics["loss"] == self.figures[step] or math.isnan(metrics["loss"]), said
        if ended != "finished":
            return "there"
        order = [e for e in self.evaluations if e["step"] > 0 and not math.isnan(e["metrics"]["loss"])]
        sign = 1 if self.metric == "loss" else -1
        first = min(order, key=lambda e: (sign * e["metrics"][self.metric], e["step"]), default=None)
        if first and first["step"] == step:
            assert "note" not in metrics and "could not be kept" not in card, said
            return "best"
        flags = [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]
        notes = [flag["message"] for flag in flags if flag.get("name") == "best_lost"]
        assert metrics["note"] == about["note"] == notes[-1] and metrics["note"] in card, said
        assert f"step {step}" in metrics["note"], said
        if first:
            assert f"step {first['step']}" in metrics["note"], said
            assert not (self.folder / f"outputs/checkpoints/step-{first['step']:06d}/manifest.json").exists(), said
        return "said"


SEEN: dict[str, int] = {}


@trials("best", quick=3, full=40)
def test_the_best_model_is_the_one_that_is_described(tmp_path: Path, chance: random.Random) -> None:
    torch.set_num_threads(1)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    history = History(tmp_path, chance)
    try:
        for number in range(4):
            ended = history.process(Accident(chance, last=number == 3))
            state = history.check(ended)
            SEEN[state] = SEEN.get(state, 0) + 1
            if ended == "finished":
                break
        assert ended == "finished", "\n".join(history.said)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_the_histories_come_to_what_they_are_for() -> None:
    if sum(SEEN.values()) < 50:
        pytest.skip("too few histories in this process to say")
    assert min(SEEN.get(state, 0) for state in ("nothing", "there", "best", "said")) > 0, SEEN
