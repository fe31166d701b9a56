"""SIGKILL at any point of a save that is written in the background: what has a checkpoint's name is complete, a checkpoint that was told
of is there, and the resumed run ends with the weights of one that nobody killed.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from remote_payload.train import folders
from remote_payload.train.state import checkpoint, host_memory, saving
from remote_payload.train.state.checkpoint import checkpoints_in, find_checkpoint
from tests.support.models.toy_training import toy_run, toy_train
from tests.support.trials import trials

FORKS = multiprocessing.get_context("forkserver")  # torch is loaded once for all processes of the trials
FORKS.set_forkserver_preload([__name__])
STEPS = 12
# Where a process may be killed: as a function is entered, or as it returns.
POINTS: dict[str, tuple[Any, str]] = {
    "a file is fsynced": (folders, "sync_file"),
    "the manifest is written": (folders, "write_json"),
    "a folder is fsynced": (folders, "sync_folder"),
    "the folder gets its name": (folders, "_move_into_place"),
    "a folder is removed": (checkpoint, "_remove"),
    "old ones are thinned out": (saving, "strip_checkpoints"),
    "the tensors are copied": (saving, "in_pieces"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str, when: str, count: int) -> None:
    """Kills this process at the ``count``-th time that it comes by."""
    left = iter(range(count - 1, -1, -1))

    def pass_by() -> None:
        if next(left, None) == 0:
            die()

    if place == "half a file is written":
        write = saving.write_pieces

        def half(path: Path, begin: bytes, pieces: Iterable[Tensor]) -> str:
            def watched() -> Iterator[Tensor]:
                for piece in pieces:
                    pass_by()
                    yield piece

            return write(path, begin, watched())

        saving.write_pieces = half
        return
    module, name = POINTS[place]
    original: Callable[..., Any] = getattr(module, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            pass_by()
        result = original(*args, **kwargs)
        if when == "after":
            pass_by()
        return result

    setattr(module, name, wrapped)


def live(folder: Path, settings: dict[str, Any], death: tuple[str, str, int] | None) -> None:
    """One process of the run: trains from the newest checkpoint to the end, or to its death."""
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    host_memory.PIECE = 4096  # so that a file has many pieces
    if death:
        arm(*death)
    toy_train(toy_run(folder, settings, resume="auto"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    process = FORKS.Process(target=live, args=(folder, drawn(random.Random(0)), None))
    process.start()
    process.join()
    return load_file(folder / f"outputs/checkpoints/step-{STEPS:06d}/model.safetensors")


def drawn(chance: random.Random) -> dict[str, Any]:
    keep = {"keep": chance.choice((1, 2, None)), "resumable": chance.choice((1, 2, None))}
    return {
        "epochs": STEPS / 3,
        "dropout": 0.3,
        "batch": {"size": 8, "micro": 4},
        "checkpoint": {"every_steps": chance.choice((1, 2, 3)), "at_start": chance.random() < 0.5, **keep},
    }


def check(folder: Path, said: str) -> None:
    """After a death, and at the end."""
    saves, events = folder / "outputs/checkpoints", folder / "events.jsonl"
    lines = events.read_text().splitlines() if events.exists() else []
    told = [event["step"] for event in map(json.loads, lines) if event["type"] == "checkpoint"]
    there = [found.step for found in checkpoints_in(saves)]
    assert there == [found.step for found in checkpoints_in(saves, hashes=True)], f"one is not what was written: {said}"
    assert not told or there[-1] >= max(told), f"{told} were told of, {there} are there: {said}"
    newest = find_checkpoint("auto", saves)
    if newest:
        assert int(json.loads((newest / "state.json").read_text())["step"]) == there[-1], said


DIED: dict[str, int] = {}


@trials("saves", quick=4, full=60)
def test_a_run_that_is_killed_at_any_point_of_a_save_goes_on_bit_for_bit(
    tmp_path: Path, chance: random.Random, undisturbed: dict[str, Tensor]
) -> None:
    settings, deaths = drawn(chance), []
    for _ in range(3):
        place = chance.choice([*POINTS, *["half a file is written"] * 3])
        most = 400 if place == "half a file is written" else 20
        deaths.append((place, chance.choice(("before", "after")), chance.randint(1, most)))
    for death in [*deaths, None]:
        process = FORKS.Process(target=live, args=(tmp_path, settings, death))
        process.start()
        process.join(120)
        said = f"{settings['checkpoint']}, deaths {deaths}, now {death}"
        assert process.exitcode in ((0, -signal.SIGKILL) if death else (0,)), f"{process.exitcode}: {said}"
        check(tmp_path, said)
        if process.exitcode == 0:
            break
        DIED[death[0]] = DIED.get(death[0], 0) + 1
    saves = tmp_path / "outputs/checkpoints"
    assert not [path.name for path in saves.iterdir() if path.name.startswith(".")], said
    last = load_file(saves / f"step-{STEPS:06d}" / "model.safetensors")
    assert all(torch.equal(last[name], value) for name, value in undisturbed.items()), said


def test_the_deaths_come_to_every_point() -> None:
    if sum(DIED.values()) < 100:
        pytest.skip("too few deaths in this process to say")
    assert set(DIED) == {*POINTS, "half a file is written"}, DIED
