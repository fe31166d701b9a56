"""``gpurun watch`` of four runs on a large terminal: its share of a core, and what crosses a link of 150 ms and 1 Mbit/s.

python -m tests.benchmarks.bench_watch [--quick]
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from runner.cli.audience import AGENT_VARIABLES
from tests.benchmarks.bench_bulk import repoint
from tests.benchmarks.box import Bench, bench, link
from tests.benchmarks.measure import Row, run_piece
from tests.support.proxy import Proxy

RTT, RATE = 0.15, 125_000  # seconds, bytes a second
RUNS = 4
# Two steps a second, as a fine-tune has them, an evaluation now and then, and a talkative log.
TRAIN = """
import json, os, random, time
with open(os.environ["GPURUN_EVENTS"], "a", buffering=1) as events:
    for step in range(1, 100000):
        told = {"step": step, "total": 100000, "epoch": step / 1000, "loss": 3 / step + random.random(), "lr": 1e-4, "grad_norm": 1.0,
                "tokens_per_second": 1900 + random.random(), "mfu": 0.4, "ms": 500.0}
        events.write(json.dumps({"t": time.time(), "type": "step", **told}) + "\\n")
        if step % 20 == 0:
            scores = {"loss": random.random(), "accuracy": random.random()}
            events.write(json.dumps({"t": time.time(), "type": "eval", "name": "validation", "step": step, "metrics": scores}) + "\\n")
        print("x" * 5000, flush=True)
        time.sleep(0.5)
"""


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    seconds = 15.0 if quick else 60.0
    with bench() as made:
        (made.project).mkdir(parents=True, exist_ok=True)
        (made.project / "train.py").write_text(TRAIN)
        job = made.job(made.project, command=["python3", "train.py"])
        ids = [made.submit(job)[0] for _ in range(RUNS)]
        with link(made) as proxy:
            yield share_of_a_core(made, ids, proxy, seconds)
        with link(made, RTT, RATE) as proxy:
            yield over_the_link(made, ids, proxy, seconds)
            made.gpurun("stop", *ids, "--grace", "0")


def share_of_a_core(made: Bench, ids: list[str], proxy: Proxy, seconds: float) -> Row:
    with watching(made, ids, proxy) as process:
        before = busy(process)
        time.sleep(seconds)  # what is measured is this time
        share = 100 * (busy(process) - before) / seconds
    return Row(f"gpurun watch of {RUNS} runs, 200 × 50, of a core", share, 3.0, "%", 1.0, against="allowed")


def over_the_link(made: Bench, ids: list[str], proxy: Proxy, seconds: float) -> Row:
    with watching(made, ids, proxy):
        proxy.count_anew()
        time.sleep(seconds)
        rate = proxy.trace.bytes("to client") / seconds / 1000
        trips = proxy.trace.round_trips / seconds
    name = f"gpurun watch of {RUNS} runs, RTT 150 ms, 1 Mbit/s, from the box"
    return Row(name, rate, RATE / 1000, "KB/s", 0.5, against="of the link", note=f"{trips:.1f} round trips a second")


@contextmanager
def watching(made: Bench, ids: list[str], proxy: Proxy) -> Iterator[subprocess.Popen[bytes]]:
    """The command on a terminal of its own whose screen is read and dropped, once it has drawn for some seconds."""
    for run_id in ids:
        repoint(made, run_id, proxy.port)
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    kept = {name: value for name, value in made.environment().items() if name not in AGENT_VARIABLES}
    process = subprocess.Popen(
        made.gpurun_argv("watch", *ids), stdin=its, stdout=its, stderr=its, env=kept, cwd=made.folder
    )
    os.close(its)
    drawn = threading.Event()
    threading.Thread(target=drop, args=(ours, drawn), daemon=True).start()
    try:
        if not drawn.wait(60):
            raise RuntimeError("nothing was drawn within a minute")
        time.sleep(5.0)  # the start is not what is measured
        yield process
        os.write(ours, b"q")
        if process.wait(30) != 0:
            raise RuntimeError(f"gpurun watch ended with {process.returncode}")
    finally:
        process.kill()


def drop(terminal: int, drawn: threading.Event) -> None:
    try:
        seen = b""
        while data := os.read(terminal, 1 << 16):
            seen = (seen + data)[-200_000:]
            if b"accuracy" in seen or b"loss" in seen:
                drawn.set()
    except OSError:
        return  # the other end is closed


def busy(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time so far."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
