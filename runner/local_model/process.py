"""The worker, started and listened to: a fresh Python with a clean environment, a request in, progress and one result out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from remote_payload.agent.wire.redact import redact
from runner.domain.errors import SmokeTestFailed
from runner.domain.terminal import clean, clean_lines

SILENCE = (
    900.0  # seconds without progress after which a worker is given up on: the slowest load of a large model is minutes
)
MAX_LINE = 4 << 20
SOURCE = Path(__file__).resolve().parents[2]  # where `runner` and `remote_payload` are imported from
# What the libraries need of this machine. No token, key or password is among them.
KEPT = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
KEPT_PREFIXES = ("LC_", "OMP_", "MKL_", "CUDA_", "DYLD_", "PYTORCH_", "TORCH_")


def run_worker(request: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The worker's result. Raises SmokeTestFailed with what it said when it failed, died or fell silent.

    ``progress`` is given ``{"note"}`` or ``{"done", "total"}`` as it goes.
    """
    with tempfile.TemporaryDirectory(prefix="gpurun-smoke-") as empty, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner.local_model.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=empty,  # so that no module of the user's or of the model's folder stands before the libraries
            env=worker_environment(empty),
        )
        try:
            answer = _converse(process, json.dumps(request).encode(), progress)
            if answer.get("ended") == "":  # its end was seen on the pipe: the exit code follows
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
        finally:
            process.kill()
            process.wait()
        if "result" in answer:
            result: dict[str, Any] = answer["result"]
            return result
        raise _failed(answer, _tail(errors), process.returncode)


def worker_environment(home: str) -> dict[str, str]:
    """The variables of the worker: offline, without a token, with its caches in the empty folder ``home``."""
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


def _converse(
    process: subprocess.Popen[bytes], request: bytes, progress: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Sends the request and reads lines of JSON until a result or an error; ``{"ended": how}`` where there is none."""
    assert process.stdin and process.stdout
    silent = threading.Event()

    def give_up() -> None:
        silent.set()
        process.kill()

    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(request)
        process.stdin.close()
    while True:
        watchdog = threading.Timer(SILENCE, give_up)
        watchdog.start()
        line = process.stdout.readline(MAX_LINE)
        watchdog.cancel()
        if not line:
            return {"ended": f"fell silent for {SILENCE:.0f} s" if silent.is_set() else ""}
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            return {"ended": "said something that is no answer"}
        if "result" in said or "error" in said:
            return said
        progress(said)


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - 4000))
    return redact(clean_lines(errors.read().decode("utf-8", "replace"), 1500))


def _failed(answer: dict[str, Any], tail: str, code: int | None) -> SmokeTestFailed:
    if "error" in answer:
        error = answer["error"]
        return SmokeTestFailed(redact(clean(error["message"], 800)), hint=clean(error.get("hint", ""), 300))
    last = "\n".join(tail.splitlines()[-6:])
    died = "was out of memory, or was killed" if code in (-9, 137) else f"ended with code {code}"
    reason = answer["ended"] or died
    return SmokeTestFailed(
        f"the process that loads the model {reason}" + (f":\n{last}" if last else ""),
        meaning="Nothing was compared.",
        hint="Close what uses memory and repeat the command, or try --device cpu.",
    )
