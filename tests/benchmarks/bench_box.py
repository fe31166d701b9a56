"""On the box: what a supervisor and its sampler cost, that nothing is left when no run is, and that a cold box builds and receives at once.

python -m tests.benchmarks.bench_box [--quick]
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.box import Bench, bench, link, write_tree
from tests.benchmarks.measure import Row, run_piece, seconds

TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    with bench() as made:
        yield from supervisor(made, 20 if quick else 120)
    with bench() as made:
        yield from cold(made, quick)


def supervisor(made: Bench, watched: float) -> Iterator[Row]:
    job = made.job(made.project, command=["sh", "-c", "date +%s.%N > $MARK; exec sleep 3600"])
    run_id = made.submit(job)[0]
    made.first_line_after(time.time())
    pid = int(
        re.findall(r'"pid": ?(\d+)', (made.server.home / ".gpurun-box/runs" / run_id / "owner.json").read_text())[-1]
    )
    pid = (
        next(other for other in processes_of(made) if "supervise" in other[1])[0]
        if "supervise" not in command(pid)
        else pid
    )
    time.sleep(2)  # past its start
    before, began = cpu(pid), time.monotonic()
    time.sleep(watched)
    share = 100 * (cpu(pid) - before) / (time.monotonic() - began)
    yield Row(f"supervisor and sampler, {watched:.0f} s", share, 0.5, "% of one core", 1.0, against="allowed")
    memory = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024
    yield Row("supervisor and sampler, peak memory", memory, 30, "MB", 1.0, against="allowed")
    made.gpurun("stop", run_id)
    deadline = time.monotonic() + 20
    while processes_of(made) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = len(processes_of(made))
    yield Row("processes of gpurun's when no run is", left + 1, 1, "(+1)", 1.0, against="allowed")


def cold(made: Bench, quick: bool) -> Iterator[Row]:
    """An environment that has to be built while code crosses a narrow link, beside each by itself."""
    write_tree(made.project, 8 if quick else 24, 1 << 20)
    empty = made.folder / "empty"
    needs = {"python": None, "requirements": ["tomli_w==1.0.0"]}
    with link(made, 0.05, 4e6) as proxy:

        def submit(folder: Path, version: str, requirements: bool) -> float:
            environment = {**needs, "requirements": [f"tomli_w=={version}"]} if requirements else {}
            job = made.job(folder, command=["sh", "-c", "true"], environment=environment)
            return seconds(lambda: made.submit(job, port=proxy.port))

        submit(empty, "", False)
        nothing = submit(empty, "", False)
        submit(empty, "1.0.0", True)  # what is built once a box is there: uv's or pip's caches
        build = submit(empty, "1.1.0", True) - nothing
        push = submit(made.project, "", False) - nothing
        (made.project / "file-more.bin").write_bytes(os.urandom(1 << 20))
        for file in made.project.rglob("file-*.txt"):
            os.utime(file)
            file.write_bytes(os.urandom(1 << 20))
        both = submit(made.project, "1.2.0", True) - nothing
    yield Row("cold box: environment and push together", both, max(build, push), "s", 1.1, against="the longer alone",
              note=f"environment {build:.1f} s, push {push:.1f} s")  # fmt: skip


def processes_of(made: Bench) -> list[tuple[int, str]]:
    """Those whose command names this bench's box."""
    root = str(made.server.home / ".gpurun-box")
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and root in (said := command(int(entry))):
            found.append((int(entry), said))
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
