"""The process that loads a model: a fresh Python without a token, its libraries set offline, killed when it is silent for too long.

Every command that loads a model on this machine does it here, so a damaged model cannot take gpurun down with it, and no secret is in
the environment of the libraries that read it. Its folder was inspected before (``inspect.py``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from remote_payload.agent.wire.redact import redact
from remote_payload.recipes.answers import Answered, Loaded
from runner.domain.answers.reading import Impossible
from runner.domain.errors import ArtifactError, UserError
from runner.domain.progress import Stage
from runner.domain.terminal import clean, clean_lines
from runner.local_model.lines import read_message, request_line
from runner.local_model.messages import (
    Evaluated,
    Exported,
    Failure,
    Message,
    PredictResult,
    Progress,
    Request,
    SmokeResult,
)

SILENCE = (
    900.0  # seconds without a line after which the process is killed: the slowest load of a large model takes minutes
)
EXIT = 5.0  # seconds that the process has to end after it closed its output
MAX_LINE = 4 << 20
SOURCE = Path(__file__).resolve().parents[2]  # where `runner` and `remote_payload` are imported from
# What the libraries need of this machine. No token, key or password is among them.
KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "GPURUN_DEBUG",  # the process then ends with a traceback
)
KEPT_PREFIXES = ("LC_", "OMP_", "MKL_", "CUDA_", "DYLD_", "PYTORCH_", "TORCH_")

ShowProgress = Callable[[Progress], None]
T = TypeVar("T", SmokeResult, Exported, Loaded, Answered, Evaluated, PredictResult)


class ModelProcess:
    """A process that has one model and answers about it, one line after the other."""

    def __init__(
        self, process: subprocess.Popen[bytes], stderr: IO[bytes], error: type[ArtifactError], meaning: str
    ) -> None:
        self._process = process
        self._stderr = stderr
        self._error = error
        self._meaning = meaning
        self._silent = threading.Event()

    def send(self, line: bytes) -> None:
        """Writes a line to the process. If it has ended, ``receive`` raises the reason."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def receive(self, kind: type[T], progress: ShowProgress = lambda _: None) -> T:
        """The next message, which must be of this kind; ``progress`` is called with what comes before it.

        Raises the error that the process was started with when the process reports a failure, ends, prints something else or
        nothing for SILENCE seconds.
        """
        while True:
            message = self._next()
            if isinstance(message, kind):
                return message
            if isinstance(message, Failure):
                error = UserError if message.of_input else self._error
                raise error(redact(clean(message.message, 800)), hint=clean(message.hint, 300))
            if not isinstance(message, Progress):
                raise self._ended("printed a line that is not an answer")
            progress(message)

    def _next(self) -> Message | None:
        line = self._read_line()
        if not line:
            raise self._ended(f"was silent for {SILENCE:.0f} s" if self._silent.is_set() else "")
        try:
            return read_message(line)
        except Impossible as error:
            raise self._ended(f"printed an impossible value ({error})") from None

    def _read_line(self) -> bytes:
        """The next line; nothing at the end of the output, also when the process was killed for its silence."""
        assert self._process.stdout
        watchdog = threading.Timer(SILENCE, self._kill_silent)
        watchdog.start()
        try:
            return self._process.stdout.readline(MAX_LINE)
        finally:
            watchdog.cancel()

    def _kill_silent(self) -> None:
        self._silent.set()
        self._process.kill()

    def _ended(self, reason: str) -> ArtifactError:
        """The error for a process that gave no answer; without a ``reason`` its exit code is one."""
        if not reason:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=EXIT)
        self._process.kill()
        code = self._process.wait()
        killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        how = reason or ("was out of memory, or was killed" if killed else f"ended with code {code}")
        last = "\n".join(_tail(self._stderr).splitlines()[-6:])
        return self._error(
            f"the process that loads the model {how}" + (f":\n{last}" if last else ""),
            meaning=self._meaning,
            hint="Close what uses memory and repeat the command, or try --device cpu.",
        )


@contextmanager
def model_process(request: Request, error: type[ArtifactError], *, meaning: str = "") -> Iterator[ModelProcess]:
    """A process that was given this request; it is killed when the ``with`` block ends.

    ``error`` is raised when the process gives no answer, with ``meaning`` for what that means.
    """
    with tempfile.TemporaryDirectory(prefix="gpurun-model-") as empty, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner.local_model.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=empty,  # so that no module of the user's or of the model's folder is imported instead of a library
            env=worker_environment(empty),
        )
        try:
            model = ModelProcess(process, stderr, error, meaning)
            model.send(request_line(request))
            yield model
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


def show(stage: Stage) -> ShowProgress:
    """Shows progress in a stage of the command."""
    return lambda progress: stage.update(done=progress.done, total=progress.total, note=progress.note)


def worker_environment(home: str) -> dict[str, str]:
    """The variables of the process: offline, without a token, with its caches in the empty folder ``home``."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    return kept | {
        "PYTHONPATH": str(SOURCE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HOME": home,
        "HF_TOKEN_PATH": os.path.join(home, "no-token"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Operators that Metal lacks run on the CPU instead of failing; read when torch is imported.
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    }


def _tail(stderr: IO[bytes]) -> str:
    """The end of what the process wrote to stderr, without control sequences and secrets."""
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - 4000))
    return redact(clean_lines(stderr.read().decode("utf-8", "replace"), 1500))
