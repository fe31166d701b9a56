"""A log: how late a line is, and how fast 200 MB of it come.

    python -m tests.benchmarks.bench_log [--quick]

Late: each line holds the moment when it was written; the moment when it is read from gpurun's stdout is taken here, on the same clock.
Fast: the log is on the box already; gpurun keeps a copy, shows it, and takes out control sequences (not with --raw).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence

from tests.benchmarks.bench_bulk import repoint
from tests.benchmarks.box import Bench, bench, link
from tests.benchmarks.measure import Row, compare, rounds, run_piece, seconds

WRITER = """
import os, time
while not os.path.exists({stop!r}):
    os.write(1, b"%.6f a line of a log that is as long as lines are\\n" % time.time())
    time.sleep(0.05)
"""
LINE = b"step %08d loss 2.1234 lr 3.0e-04 tokens/s 12345 grad_norm 0.987 memory 12.3 GiB\n"


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    with bench() as made:
        for rtt in (0.0, 0.05):
            yield from lateness(made, rtt, quick)
        yield from throughput(made, quick)


def lateness(made: Bench, rtt: float, quick: bool) -> Iterator[Row]:
    stop = made.folder / f"stop-{rtt}"
    (made.project).mkdir(exist_ok=True)
    (made.project / "writer.py").write_text(WRITER.format(stop=str(stop)))
    run_id = made.submit(made.job(made.project, name="writer", command=["python3", "writer.py"]))[0]
    count = 100 if quick else 600
    with link(made, rtt) as proxy:
        repoint(made, run_id, proxy.port)
        log = made.server.home / ".gpurun-box" / "runs" / run_id / "log"
        theirs = delays([*made.ssh(port=proxy.port), f"tail -n 0 -F {log}"], None, count)
        ours = delays(made.gpurun_argv("logs", run_id, "-f"), made.environment(), count)
    stop.touch()
    beside = f"ssh tail -F: p50 {quantile(theirs, 0.5):.1f}, p99 {quantile(theirs, 0.99):.1f} ms"
    for name, share, allowed in (("p50", 0.5, 5), ("p99", 0.99, 20)):
        yield Row(
            f"a log line written → printed here, 20 lines/s, RTT {rtt * 1000:.0f} ms, {name}", quantile(ours, share),
            rtt * 500 + allowed, "ms", 1.0, against="allowed", note=beside, samples={"ours": ours, "ssh tail -F": theirs},
        )  # fmt: skip


def delays(argv: Sequence[str], environment: dict[str, str] | None, count: int) -> list[float]:
    """Milliseconds for each of ``count`` lines, after the first second."""
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment, bufsize=0
    )
    assert process.stdout is not None
    found: list[float] = []
    began, rest = time.time(), b""
    while len(found) < count:
        data = os.read(process.stdout.fileno(), 65536)
        now = time.time()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, IndexError):
                written = float(line.split()[0])
                if written > began + 3:  # what was there before the connection stood is no measure
                    found.append((now - written) * 1000)
    process.kill()
    process.wait()
    process.stdout.close()
    return found


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def throughput(made: Bench, quick: bool) -> Iterator[Row]:
    lines = (20 if quick else 200) * 1_000_000 // len(LINE % 0)
    source = made.folder / "big-log"
    with open(source, "wb") as file:
        for begin in range(0, lines, 10_000):
            file.write(b"".join(LINE % number for number in range(begin, min(lines, begin + 10_000))))
    run_id = made.submit(
        made.job(made.project, name="flood", command=["sh", "-c", f"cat {source}; date +%s.%N > $MARK"])
    )[0]
    made.first_line_after(time.time())
    size = source.stat().st_size / 1e6
    log = made.server.home / ".gpurun-box" / "runs" / run_id / "log"

    def gpurun(*options: str) -> float:
        for name in ("log", "events.jsonl"):
            (made.home / "runs" / run_id / name).unlink(missing_ok=True)
        return size / seconds(lambda: to_null(made.gpurun_argv("logs", run_id, *options), made.environment()))

    def cat() -> float:
        return size / seconds(lambda: to_null([*made.ssh(), f"cat {log}"], None))

    for name, options, bound in (("filter off", ("--raw",), 0.8), ("filter on", (), 0.4)):
        yield compare(
            f"{size:.0f} MB of log already there, {name}", lambda options=options: gpurun(*options), cat,  # type: ignore[misc]
            count=rounds(quick), unit="MB/s", bound=bound, more_is_better=True,
        )  # fmt: skip
    shutil.rmtree(made.project)


def to_null(argv: Sequence[str], environment: dict[str, str] | None) -> None:
    with open(os.devnull, "wb") as nothing:
        subprocess.Popen(argv, stdout=nothing, stderr=nothing, stdin=subprocess.DEVNULL, env=environment).wait()


def median_of(values: Sequence[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
