"""Commands that ask one thing at RTT 50 ms beside ``ssh host true``; how soon any command starts; a list of 2,000 runs.

python -m tests.benchmarks.bench_commands [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.benchmarks.bench_bulk import repoint
from tests.benchmarks.box import Bench, bench, link
from tests.benchmarks.measure import Row, compare, rounds, run_piece, seconds

RTT = 0.05
WAIT = "echo one; echo two; date +%s.%N > $MARK; exec sleep 3600"


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    with bench() as made:
        yield from start(made, quick)
        yield from asking(made, quick)
        yield from listing(made, quick)


def start(made: Bench, quick: bool) -> Iterator[Row]:
    for words in (["--help"], ["submit", "--help"], ["logs", "--help"]):
        yield compare(
            f"start: gpurun {' '.join(words)}",
            lambda words=words: seconds(lambda: made.gpurun(*words)),  # type: ignore[misc]
            lambda: seconds(lambda: made.run([sys.executable, "-c", "import click"], env=made.environment())),
            count=rounds(quick) * 3,
            unit="s",
            bound=2.0,
        )


def asking(made: Bench, quick: bool) -> Iterator[Row]:
    job = made.job(made.project, command=["sh", "-c", WAIT])
    with link(made, RTT) as proxy:

        def ssh_true() -> float:
            return seconds(lambda: made.run([*made.ssh(port=proxy.port), "true"]))

        run_id = made.submit(job)[0]
        made.first_line_after(time.time())
        repoint(made, run_id, proxy.port)
        for words in (["status", run_id], ["logs", run_id, "--tail", "1"]):
            proxy.count_anew()
            made.gpurun(*words)
            trips = proxy.trace.round_trips
            yield compare(
                f"gpurun {words[0]}{' --tail' if len(words) > 2 else ''}, RTT 50 ms",
                lambda words=words: seconds(lambda: made.gpurun(*words)),  # type: ignore[misc]
                ssh_true,
                count=rounds(quick),
                unit="s",
                bound=1.15,
                note=f"{trips} round trips",
            )
        made.gpurun("stop", run_id)

        def stop() -> float:
            ended = made.submit(job)[0]
            made.first_line_after(time.time())
            repoint(made, ended, proxy.port)
            return seconds(lambda: made.gpurun("stop", ended))

        yield compare("gpurun stop, RTT 50 ms", stop, ssh_true, count=rounds(quick), unit="s", bound=1.15,
                      note="of a run that ends at once")  # fmt: skip


def listing(made: Bench, quick: bool) -> Iterator[Row]:
    runs = made.home / "runs"
    latest = sorted(runs.iterdir())[-1]
    record = json.loads((latest / "run.json").read_text())
    for number in range(100 if quick else 2000):
        run_id = f"many-20250101-{number // 3600:02d}{number // 60 % 60:02d}{number % 60:02d}-{number:04x}"
        (runs / run_id).mkdir()
        (runs / run_id / "run.json").write_text(json.dumps({**record, "run_id": run_id}))
    for words in (["list"], ["list", "--all"]):
        yield compare(
            f"gpurun {' '.join(words)} with {len(list(runs.iterdir()))} runs",
            lambda words=words: seconds(lambda: made.gpurun(*words)),  # type: ignore[misc]
            lambda: seconds(
                lambda: subprocess.run(
                    [sys.executable, "-c", "import click"], env=made.environment(), check=True, capture_output=True
                )
            ),
            count=rounds(quick),
            unit="s",
            bound=5.0,
        )


if __name__ == "__main__":
    main()
