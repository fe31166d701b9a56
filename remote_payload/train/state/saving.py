"""Checkpoints are written while training goes on: a save copies the tensors to host memory, and a thread does the rest.

The copies are queued on the stream that the next optimizer step is queued on, so that they have the values of this step; on the CPU
they are made at once. There is one copy at a time: the next save waits for the last one. Where the host has no memory for it,
the tensors are written one after the other while training waits.

Not ``torch.distributed.checkpoint.async_save``: it writes a file for each rank with pickled metadata, and calls collectives in its
thread. Ours are whole tensors, which the laptop reads and any number of GPUs resumes from.
"""

from __future__ import annotations

import copy
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from remote_payload.train.distributed import unwrapped
from remote_payload.train.files import write_json
from remote_payload.train.folders import complete_folder
from remote_payload.train.run import Run
from remote_payload.train.state import rng
from remote_payload.train.state.checkpoint import prune_checkpoints, strip_checkpoints, trained
from remote_payload.train.state.grace import Grace
from remote_payload.train.state.host_memory import HostBuffers
from remote_payload.train.state.optimizer import named_state
from remote_payload.train.state.progress import Progress
from remote_payload.train.state.tensor_file import file_order, header, in_pieces, size_of, write_pieces

SPARE_DISK = 256 * 2**20  # bytes that a save leaves free, for logs and events

Extras = Callable[[Path], None]
Tensors = dict[str, dict[str, Tensor]]  # of each file, by name


@dataclass
class Save:
    """A checkpoint that is being written. ``done`` has its error, once it is over."""

    progress: Progress
    metrics: dict[str, float]  # of this step's evaluation, if there was one
    path: Path
    size: int  # bytes of its tensors
    hashed: dict[str, str] = field(default_factory=dict)
    done: Future[None] = field(default_factory=Future)
    seconds: float = 0.0  # that writing took
    not_removed: OSError | None = None  # why old checkpoints are still there
    in_thread: bool = False  # which ends ``done``
    told: bool = False

    def facts(self) -> dict[str, Any]:
        """For its manifest."""
        return {"step": self.progress.step, "metrics": self.metrics}


class Saver:
    """Saves the checkpoints of one training. ``extras(folder)`` adds small files to each, on the main rank.

    ``saved_step`` is the step of the last checkpoint that was complete when ``wait`` returned.
    """

    def __init__(
        self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, grace: Grace, extras: Extras | None = None
    ) -> None:
        self.run, self.world, self.model, self.optimizer = run, run.world, model, optimizer
        self.grace, self.extras = grace, extras
        self.buffers = HostBuffers(run.world.device)
        self.saved_step: int | None = None
        self.last: Save | None = None  # begun, and not waited for

    def expect(self) -> None:
        """Before the first save: tells how long a stop has to wait for one, from the sizes of the weights and AdamW's two moments."""
        if self.world.main:
            learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self.grace.tell(size_of(trained(self.model).values()) + 2 * size_of(learnt))

    # Every rank calls these two.

    def save(self, progress: Progress, metrics: dict[str, float]) -> None:
        """Begins a checkpoint of this step, once the last one is written. When this returns its tensors are copied, or will be before
        the device does anything that it is asked to do later.
        """
        self.wait()
        groups = {"model": trained(self.model), "optimizer": named_state(self.model, self.optimizer)}
        sizes = [size_of(group.values()) for group in groups.values()]
        path = self.run.checkpoints / f"step-{progress.step:06d}"
        self.last = save = Save(copy.deepcopy(progress), metrics, path, sum(sizes))
        try:
            self._begin(save, groups, sizes)
        except BaseException as error:
            if (
                not save.done.done() and not save.in_thread
            ):  # else nobody would ever end it, and closing waits for its end
                save.done.set_exception(error)
            raise

    def _begin(self, save: Save, groups: Tensors, sizes: list[int]) -> None:
        problem, at_once = self.world.broadcast(self._room(sizes) if self.world.main else None)
        if problem:
            return save.done.set_exception(OSError(problem))
        generators = self.world.gather(rng.capture())
        tensors = {name: gathered(group) for name, group in groups.items()}
        if self.world.main:
            try:
                self._write(save, groups, tensors, generators, at_once)
            except OSError as error:
                save.done.set_exception(error)
        for rest in tensors.values():  # the ranks gather together, whatever becomes of the tensors
            deque(rest, maxlen=0)

    def wait(self) -> None:
        """Until the save that is under way is over, and tells what became of it. Raises what went wrong, unless it was the disk."""
        if self.last is None:
            return
        if self.world.broadcast(self._tell() if self.world.main else None):
            self.saved_step = self.last.progress.step
        self.last = None

    # The main rank's.

    def look(self) -> None:
        """Tells what became of a save as soon as it is over. Raises what went wrong, unless it was the disk."""
        if self.world.main and self.last and self.last.done.done():
            self._tell()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Around training: frees the memory at its end. After an error it waits for a save that is under way, without the other
        ranks; not after Ctrl-C, which ends at once.
        """
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException:
            self._wait_alone()
            raise
        self.buffers.release()

    def _wait_alone(self) -> None:
        if self.world.main and self.last:
            error = self.last.done.exception()
            if error is None or isinstance(error, OSError):
                self._tell()
            else:
                self.run.telemetry.flag("checkpoint_lost", f"{self.last.path.name}: {type(error).__name__}: {error}")
        self.last = None

    def _room(self, sizes: list[int]) -> tuple[str | None, bool]:
        """Why the disk has no room for files of these sizes, or None; and whether host memory is too short for a copy of them."""
        folder, size = self.run.checkpoints, sum(sizes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            return str(error), False
        if free < size + SPARE_DISK:
            return f"it takes {size / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free", False
        shortage = self.buffers.reserve(sizes)
        if shortage:
            self.run.log(f"{shortage}: training waits while the checkpoint is written")
        return None, shortage is not None

    def _write(
        self, save: Save, groups: Tensors, tensors: dict[str, Iterator[Tensor]], generators: list[dict[str, Tensor]],
        at_once: bool,
    ) -> None:  # fmt: skip
        """Writes the small files, and the tensors in a thread or ``at_once``. Raises OSError for what is written at once."""
        if at_once:
            one = self.buffers.one()
            pieces = {name: arrived(in_pieces(each, lambda: one)) for name, each in tensors.items()}
        else:
            free = iter(self.buffers.buffers)
            pieces = {name: iter(list(in_pieces(each, free.__next__))) for name, each in tensors.items()}
        queued = queue_end(self.world.device)
        with ExitStack() as unfinished:
            folder = unfinished.enter_context(complete_folder(save.path, save.hashed, **save.facts()))
            for rank, generator in enumerate(generators):
                save_file(generator, folder / f"rng-{rank}.safetensors")
            write_json(folder / "state.json", asdict(save.progress))
            if self.extras:
                self.extras(folder)
            begins = {name: header(group) for name, group in groups.items()}
            rest = unfinished.pop_all()

        def finish() -> None:
            try:
                started = time.monotonic()
                with rest:
                    if queued:
                        queued.synchronize()
                    for name, begin in begins.items():
                        file = f"{name}.safetensors"
                        save.hashed[file] = write_pieces(folder / file, begin, pieces[name])
                save.seconds = time.monotonic() - started
                self._remove_old(save)
                save.done.set_result(None)
            except BaseException as error:
                save.done.set_exception(error)

        if at_once:
            return finish()
        save.in_thread = True
        threading.Thread(target=finish, name=f"saving {save.path.name}", daemon=True).start()

    def _remove_old(self, save: Save) -> None:
        """What the settings do not keep, now that there is a newer checkpoint."""
        folder, settings, best_step = self.run.checkpoints, self.run.settings, save.progress.best_step
        keep, resumable, metric = settings.checkpoint.keep, settings.checkpoint.resumable, settings.evaluation.metric
        try:
            prune_checkpoints(folder, keep, metric, self.run.higher_is_better, best_step, save.path)
            strip_checkpoints(folder, resumable, save.path)
        except OSError as error:
            save.not_removed = error

    def _tell(self) -> bool:
        """Waits for the last save and tells, once, what became of it; whether it is complete."""
        assert self.last is not None
        save, telemetry = self.last, self.run.telemetry
        error = save.done.exception()
        if error and not isinstance(error, OSError):
            raise error
        if save.told:
            return error is None
        save.told = True
        name, step = save.path.name, save.progress.step
        if error:
            telemetry.flag("disk_full", f"{name} could not be saved: {error}; training goes on without this checkpoint")
            return False
        where = save.path.relative_to(self.run.outputs).as_posix()
        metric = save.metrics.get(self.run.settings.evaluation.metric)
        telemetry.event("checkpoint", name=name, step=step, path=where, metric=metric)
        self.run.log(f"saved {where}")
        if save.not_removed:
            telemetry.flag("not_removed", f"checkpoints before {name} could not be removed: {save.not_removed}")
        self.grace.measured(save.size, save.seconds)
        self.grace.tell(save.size, save.progress.timed_seconds / max(step, 1))
        return True


def gathered(tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The tensors in the order of their file, each one whole; every rank must take all of them."""
    return (unwrapped(tensors[name].detach()) for name in file_order(tensors))


def arrived(pieces: Iterator[Tensor]) -> Iterator[Tensor]:
    """The pieces, each once the device has copied it."""
    for piece in pieces:
        if piece.is_pinned():
            torch.cuda.current_stream().synchronize()
        yield piece


def queue_end(device: torch.device) -> torch.cuda.Event | None:
    """An event at the end of what the device was asked to do until now; None where everything is done when it was asked for."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record()
    return event
