"""TensorBoard as a process of this command: started on a free port over copies of the logs, and ended with it."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from remote_payload.agent.wire.redact import redact
from runner.domain.errors import ArtifactError, GpurunError, UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean_lines
from runner.local_model.process import worker_environment
from runner.workflow.each_host import by_place
from runner.workflow.tensorboard.mirror import Mirror
from runner.workflow.tensorboard.refresh import Refresher, may_have_more

HOST = "127.0.0.1"  # nobody else on the network sees it
ADDRESS = re.compile(rf"http://{re.escape(HOST)}:[0-9]+/")
LOOK_EVERY = 2.0  # seconds between two looks at what has come home
RELOAD_EVERY = 5  # seconds between two looks of TensorBoard's at its files
STARTS_WITHIN = 120.0  # seconds
ENDS_WITHIN = 5.0


def show(runs: Sequence[Run], report: Reporter, answers: Callable[[str], None]) -> None:
    """Shows the logs of these runs until Ctrl-C; ``answers`` is told the address once TensorBoard answers there.

    Raises UserError where TensorBoard is not installed, ArtifactError where these runs are over and have no logs.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "TensorBoard is not installed beside gpurun",
            meaning="Nothing was started.",
            hint="pip install 'gpurun[tensorboard]'",
        )
    ending = threading.Event()
    places = by_place(run for run in runs if may_have_more(run))
    refreshers = [Refresher(place, there, report, ending) for place, there in places.items()]
    with tempfile.TemporaryDirectory(prefix="gpurun-tensorboard-") as scratch:
        logs = Path(scratch, "logs")
        logs.mkdir()
        mirror = Mirror(logs)
        mirror.update(runs)
        if mirror.is_empty and not refreshers:
            raise _no_logs(runs)
        try:
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
                    signal.signal(number, _leave)  # so that the process below ends too
            for refresher in refreshers:
                refresher.start()
            with _tensorboard(logs, Path(scratch)) as process:
                answers(_await_address(process, Path(scratch)))
                _stay(process, mirror, runs, refreshers)
                raise _ended(process, Path(scratch))
        finally:
            ending.set()
            for refresher in refreshers:
                if refresher.is_alive():
                    refresher.join(timeout=ENDS_WITHIN)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _stay(
    process: subprocess.Popen[bytes], mirror: Mirror, runs: Sequence[Run], refreshers: Sequence[Refresher]
) -> None:
    """Until the process ends."""
    while process.poll() is None:
        are_over = not any(refresher.is_alive() for refresher in refreshers)
        mirror.update(runs)
        if mirror.is_empty and are_over:
            raise _no_logs(runs)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=LOOK_EVERY)


@contextmanager
def _tensorboard(logs: Path, scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which ends with the block. It takes port 6006 or the next that is free, and has no token of the user's; its temporary
    files are in ``scratch``."""
    words = ["--logdir", str(logs), "--host", HOST, "--reload_interval", str(RELOAD_EVERY)]
    with open(scratch / "output", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=scratch,
            env={**worker_environment(str(scratch)), "TMPDIR": str(scratch)},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_address(process: subprocess.Popen[bytes], scratch: Path) -> str:
    """The address that it prints once it listens there. Raises GpurunError where it ends before, or is silent."""
    end = time.monotonic() + STARTS_WITHIN
    while process.poll() is None and time.monotonic() < end:
        if found := ADDRESS.search((scratch / "output").read_text("utf-8", "replace")):
            return found[0]
        time.sleep(0.1)  # a file cannot be awaited, only read again
    raise _ended(process, scratch)


def _ended(process: subprocess.Popen[bytes], scratch: Path) -> GpurunError:
    code = process.poll()
    how = f"does not answer after {STARTS_WITHIN:.0f}s" if code is None else f"ended with code {code}"
    said = redact(clean_lines((scratch / "output").read_text("utf-8", "replace"), 1500))
    last = "\n".join(said.splitlines()[-6:])
    return GpurunError(
        f"TensorBoard {how}" + (f":\n{last}" if last else ""),
        meaning="The runs do not need it; their logs are here as they were.",
        hint="Repeat the command; pip install --upgrade 'gpurun[tensorboard]' where it cannot start.",
    )


def _no_logs(runs: Sequence[Run]) -> ArtifactError:
    return ArtifactError(
        f"no TensorBoard logs are known of {', '.join(run.run_id for run in runs[:3])}" + (" …" if runs[3:] else ""),
        meaning="A recipe writes them to logs, a program of your own to a folder that outputs: names.",
        hint="gpurun fetch brings what a run has; for the next one: outputs: [models, logs]",
    )
