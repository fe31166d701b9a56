"""How long a checkpoint holds training, beside what a training loop writes by hand.

    python -m tests.benchmarks.bench_saves [--quick]

A model of 25 million parameters with AdamW: 300 MB in fp32. "held" is the time until the next step may begin; "complete" until the
checkpoint has its name, fsynced and with the sha256 of each file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from remote_payload.settings.pretrain import PretrainSettings
from remote_payload.train.files import sha256_of
from remote_payload.train.run import Run
from remote_payload.train.state.grace import Grace
from remote_payload.train.state.optimizer import build_optimizer, named_state
from remote_payload.train.state.progress import Progress
from remote_payload.train.state.saving import Saver
from tests.benchmarks.measure import Row, compare, rounds, run_piece, seconds
from tests.benchmarks.training.trainer import DEVICE, quiet_run

WIDTH, LAYERS = 1024, 24


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        run = quiet_run(PretrainSettings(corpus="c", epochs=1), "pretrain", Path(folder))
        run.settings.checkpoint.keep = 1
        model, optimizer = trained_a_step(run)
        saver, progress = Saver(run, model, optimizer, Grace()), Progress()
        by_hand = Path(folder) / "by-hand"

        def held() -> float:
            progress.step += 1
            took = seconds(lambda: saver.save(progress, {}))
            saver.wait()  # training would go on meanwhile
            return took

        def complete() -> float:
            progress.step += 1
            return seconds(lambda: (saver.save(progress, {}), saver.wait()))

        def with_torch() -> float:
            return in_a_new_folder(by_hand, lambda: torch_save(by_hand, model, optimizer))

        def with_safetensors() -> float:
            return in_a_new_folder(by_hand, lambda: safetensors_save(by_hand, model, optimizer))

        count = rounds(quick)
        pairs: list[tuple[str, Callable[[], float], Callable[[], float], str, float | None]] = [
            ("held by a save of 300 MB", held, with_torch, "torch.save", 0.5),
            ("held by a save of 300 MB", held, with_safetensors, "save_file", 0.5),
            ("a save of 300 MB complete and hashed", complete, lambda: with_safetensors() + hashed(by_hand), "save_file, sha256", None),
        ]  # fmt: skip
        for name, ours, theirs, against, bound in pairs:
            yield replace(compare(name, ours, theirs, count=count, unit="s", bound=bound), against=against)
        run.telemetry.close()


def trained_a_step(run: Run) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and its optimizer after a step, so that there are moments."""
    model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]).to(DEVICE)
    optimizer = build_optimizer(model, run.settings.optimizer, run.world.device, seed=0)
    model(torch.ones(1, WIDTH, device=DEVICE)).sum().backward()
    optimizer.step()
    return model, optimizer


def in_a_new_folder(folder: Path, save: Callable[[], None]) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return seconds(save)


def torch_save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "checkpoint.pt")
    synced(folder)


def safetensors_save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    save_file(model.state_dict(), folder / "model.safetensors")
    save_file(named_state(model, optimizer), folder / "optimizer.safetensors")
    synced(folder)


def synced(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def hashed(folder: Path) -> float:
    return seconds(lambda: [sha256_of(path) for path in folder.iterdir()])


if __name__ == "__main__":
    main()
