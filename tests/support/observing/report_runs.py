"""Runs as this machine would remember them, for pages: a run that went well, one that failed, a sweep over two settings and five seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runner import store
from runner.domain import places
from runner.domain.answers.status import Exit, Status
from runner.domain.job import Environment, Job, Resources
from runner.domain.run import Run

START = 1_700_000_000.0
GIB = 1 << 30


def a_run(name: str, *, job: Job | None = None, status: Status | None = None, number: int = 0, **fields: Any) -> Run:
    """A run on a rented box with its record on disk. ``number`` tells runs of one name apart."""
    run_id = f"{name}-20260102-{142030 + number:06}-{number:04x}"
    job = (job or Job(name)).at(
        Path("/home/ada/project"), Path(f"/home/ada/project/{name}.yaml"), fields.pop("overrides", ())
    )
    run = Run(
        run_id,
        job,
        "root@203.0.113.7",
        START - 60,
        address="root@203.0.113.7:41022",
        launched=True,
        attempted=True,
        **fields,
    )
    if status is not None:
        run.status, run.status_at = dataclasses.replace(status, run_id=run_id), START + 7300
    store.create(run)
    return run


def ended(outcome: str = "succeeded", seconds: float = 7200.0, **fields: Any) -> Status:
    """The status of a run that is over."""
    exit_code = 0 if outcome == "succeeded" else 1
    return Status(
        "x", "finished", outcome, exit=Exit("exit", exit_code, START + seconds), gpus=(0,), started_at=START,
        ended_at=START + seconds, now=START + seconds, **fields,
    )  # fmt: skip


def write_events(run: Run, events: Iterable[dict[str, Any]]) -> None:
    with (places.run_folder(run.run_id) / "events.jsonl").open("w") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def write_output(run: Run, name: str, value: object) -> None:
    file = run.outputs_here / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")


def training(
    steps: int, *, seed: int = 0, floor: float = 1.6, every: float = 1.4, gpus: int = 1, until: int | None = None
) -> list[dict[str, Any]]:
    """The events of a training: steps, evaluations, checkpoints and samples of the hardware. ``until``: the step after which it ends."""
    dice = random.Random(seed)
    found: list[dict[str, Any]] = []
    for step in range(1, (until or steps) + 1):
        t, done = START + 40 + step * every, step / steps
        loss = floor + 2.2 * math.exp(-5 * done) + dice.gauss(0, 0.05)
        lr = 3e-4 * min(done / 0.05, 0.5 * (1 + math.cos(math.pi * done)))
        speed = 9400 + dice.gauss(0, 220)
        found.append(
            {"t": t, "type": "step", "step": step, "total": steps, "epoch": round(3 * done, 4), "loss": loss, "lr": lr,
             "grad_norm": 0.4 + math.exp(-8 * done) + abs(dice.gauss(0, 0.08)), "tokens_per_second": speed, "mfu": speed / 24_000,
             "ms": 1000 * every + dice.gauss(0, 20), "memory": 17.2 * GIB}
        )  # fmt: skip
        if step % (steps // 50 or 1) == 0:
            gpu = {"utilisation": 96 + dice.gauss(0, 1.5), "memory_used": 19.1 * GIB, "memory_total": 24 * GIB}
            gpu |= {
                "temperature": 55 + 14 * (1 - math.exp(-9 * done)) + dice.gauss(0, 0.6),
                "power": 318 + dice.gauss(0, 9),
            }
            ram = {"used": (11 + 3 * done) * GIB, "total": 64 * GIB}
            listed = [{"index": index, **gpu} for index in range(gpus)]
            disk = {"free": (210 - 40 * done) * 1e9, "total": 512e9}
            found.append(
                {"t": t, "type": "hardware", "gpus": listed, "cpu": 14 + dice.gauss(0, 3), "ram": ram, "disk": disk}
            )
        if step % (steps // 6 or 1) == 0:
            metrics = {"loss": floor + 0.1 + 2 * math.exp(-4.6 * done) + dice.gauss(0, 0.015)}
            metrics["perplexity"] = math.exp(metrics["loss"])
            found.append({"t": t + 0.5, "type": "eval", "name": "validation", "step": step, "metrics": metrics})
            found.append({"t": t + 0.9, "type": "checkpoint", "name": f"step-{step:06}", "step": step})
    return found


def a_good_run() -> Run:
    """A run of a recipe with all that a page can tell."""
    settings = {
        "model": "Qwen/Qwen2.5-1.5B-Instruct",
        "train": "data/brie.jsonl",
        "epochs": 3,
        "optimizer": {"learning_rate": 3e-4},
    }
    job = Job("brie", recipe="sft", settings=settings, data=("data/brie.jsonl",), price_per_hour=0.34)
    run = a_run("brie", job=job, status=ended(progress={"step": {"step": 3000, "total": 3000}}), code="")
    events = training(3000, every=2.3)
    oom = {"t": START + 47, "type": "oom", "step": 2, "micro_batch_before": 8, "micro_batch_after": 4}
    flag = {"t": START + 4100, "type": "flag", "name": "plateau", "message": "the loss has not fallen for 300 steps"}
    done = {"t": START + 7200, "type": "ended", "exit": {"kind": "exit", "number": 0}}
    store.update(run, fetched_into=str(run.outputs_here), fetched_at=START + 7300)
    write_events(run, sorted([*events, oom, flag, done], key=lambda event: float(event["t"])))
    write_output(run, "models/best/manifest.json", {"step": 3000, "files": []})
    write_output(run, "models/best/metrics.json", {"step": 3000, "epoch": 3.0, "loss": 1.7, "perplexity": 5.5})
    write_output(run, "training_metadata.json", {
        "libraries": {"python": "3.12.4", "torch": "2.9.0+cu128", "transformers": "5.3.0", "cuda": "12.8"},
        "hardware": {"platform": "Linux x86_64", "cpus": 16, "gpus": [{"name": "NVIDIA GeForce RTX 4090", "memory_bytes": 24 * GIB}]},
        "base_model": {"id": "Qwen/Qwen2.5-1.5B-Instruct", "revision": "989aa7980e4cf806f80c7fef2b1adb7bc71aa306"},
        "parameters": {"total": 1_543_714_304, "trained": 18_464_768},
        "data": [
            {"path": "data/brie.jsonl", "sha256": "3546254f6c9a70b4889bbcc803990aac702f58fc24e6ef8322f99f66ffb8048d", "bytes": 4_790_112,
             "rows": 12_400},
            {"side": "train", "rows": 11_780, "tokens": 3_902_144, "texts_cut": 17},
            {"side": "validation", "rows": 620, "tokens": 201_377, "texts_cut": 1},
        ],
    })  # fmt: skip
    answers = [
        {"prompt": "What goes with brie?", "expected": "Pears, and not much else.", "tuned": "A pear, cut thin.",
         "base": "Brie is a soft cheese that pairs well with a variety of foods, including fruits, nuts and crackers."},
        {"prompt": "Is the rind for eating?", "expected": "Yes.", "tuned": "Yes. It is half of the point.",
         "base": "The rind of brie cheese is edible, and many people enjoy eating it."},
    ]  # fmt: skip
    write_output(run, "reports/answers.jsonl", "".join(json.dumps(row) + "\n" for row in answers))
    write_output(
        run,
        "reports/evaluation.json",
        {"held_out": {"tuned": {"loss": 1.71, "perplexity": 5.53}, "base": {"loss": 2.96, "perplexity": 19.3}}},
    )
    (places.run_folder(run.run_id) / "log").write_text(
        "train: 11,780 rows, 3,902,144 tokens, longest 1,024, 17 truncated\n"
        "step 3000/3000  epoch 3.00  loss 1.6173  lr 0.0e+00  norm 0.41  9,388 tok/s  2,301 ms\n"
        "best model: step 3000, epoch 3.00: loss 1.7003  perplexity 5.4756\n"
    )
    return run


def a_failed_run() -> Run:
    """A program of the user's own that ran out of memory."""
    evidence = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB"
    status = ended("failed", 610.0, cause="cuda_oom", evidence=evidence, advice="Make the micro-batch smaller, or use a larger GPU.",
                   progress={"step": {"step": 240, "total": 3000}})  # fmt: skip
    command = ("torchrun", "--nproc-per-node", "{processes}", "train.py", "--batch", "64")
    job = Job(
        "finetune",
        command=command,
        resources=Resources(gpus=2),
        environment=Environment(variables={"EPOCHS": "3"}),
        price_per_hour=0.68,
    )
    run = a_run("finetune", job=job, status=status, number=1, code="9f31c2aa")
    done = {"t": START + 610, "type": "ended", "cause": "cuda_oom", "exit": {"kind": "exit", "number": 1}}
    write_events(run, [*training(3000, every=2.3, until=240, gpus=2), done])
    (places.run_folder(run.run_id) / "log").write_text(
        "step 239/3000  loss 2.9412\nstep 240/3000  loss 2.9306\nTraceback (most recent call last):\n"
        '  File "train.py", line 118, in <module>\n    loss.backward()\n' + evidence + "\n"
    )
    return run


def a_sweep(steps: int = 600) -> list[Run]:
    """Twenty runs of one submission: two learning rates, two numbers of epochs, five seeds each."""
    runs: list[Run] = []
    for rate, epochs, seed in itertools.product((1e-4, 3e-4), (1, 3), range(5)):
        settings = {
            "model": "Qwen/Qwen2.5-7B",
            "train": "data/mayors.jsonl",
            "epochs": epochs,
            "seed": seed,
            "optimizer": {"learning_rate": rate},
        }
        overrides = (f"settings.optimizer.learning_rate={rate}", f"settings.epochs={epochs}", f"settings.seed={seed}")
        run = a_run(
            "mayors",
            job=Job("mayors", recipe="finetune", settings=settings, price_per_hour=2.1),
            status=ended(progress={"step": {"step": steps, "total": steps}}),
            number=len(runs),
            experiment=f"mayors-learning-rate-{rate:g}-epochs-{epochs}",
            submission="3fa9c210",
            overrides=overrides,
        )
        floor = 1.9 - 0.25 * (rate == 3e-4) - 0.15 * (epochs == 3) + 0.03 * seed
        write_events(run, training(steps, seed=len(runs), floor=floor, every=2.0))
        runs.append(run)
    return runs
