"""Warm submit: a tree the box has already, or with one changed file, beside ``rsync -az`` and ``ssh … nohup``.

    python -m tests.benchmarks.bench_submit [--quick]

Both are timed to the moment when the payload's first line ran. The two-connection script is what people write; the round trips of
each are counted at the client's end of the link.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.box import FIRST_LINE, Bench, bench, link, write_tree
from tests.benchmarks.measure import Row, by_turns, rounds, run_piece
from tests.support.proxy import Proxy

FILES, SIZE = 500, 4096
ROUND_TRIPS = 9


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    with bench() as made:
        write_tree(made.project, FILES, SIZE, text=True)
        job = made.job(made.project)
        for rtt in (0.0, 0.05, 0.15):
            with link(made, rtt) as proxy:
                yield from unchanged(made, job, proxy, rtt, quick)
                yield one_changed(made, job, proxy, rtt, quick)
        yield from one_after_another(made, quick)


def unchanged(made: Bench, job: Path, proxy: Proxy, rtt: float, quick: bool) -> Iterator[Row]:
    trips: dict[str, list[int]] = {"ours": [], "by hand": []}
    ours = counted(proxy, trips["ours"], lambda: submit(made, job, proxy))
    script = counted(proxy, trips["by hand"], lambda: by_hand(made, proxy))
    first, second = by_turns(rounds(quick), ours, script)
    mine, theirs = statistics.median(trips["ours"]), statistics.median(trips["by hand"])
    name = f"warm submit, {FILES} files unchanged, RTT {rtt * 1000:.0f} ms"
    yield Row(
        name,
        statistics.median(first),
        statistics.median(second),
        "s",
        0.5 if rtt else None,
        note=f"round trips {mine:.0f} / {theirs:.0f}",
        samples={"ours": first, "by hand": second},
    )
    if rtt:
        ours()
        print("\n".join(f"    {line}" for line in str(proxy.trace).splitlines()), flush=True)
        yield Row(
            f"{name}: round trips",
            mine,
            ROUND_TRIPS,
            "round trips",
            1.0,
            against="allowed",
        )


def one_changed(made: Bench, job: Path, proxy: Proxy, rtt: float, quick: bool) -> Row:
    file = made.project / "part-0002" / "file-00250.txt"

    def change() -> None:
        file.write_bytes(os.urandom(SIZE // 2) + file.read_bytes()[SIZE // 2 :])

    def ours() -> float:
        change()
        return submit(made, job, proxy)

    def script() -> float:
        change()
        return by_hand(made, proxy)

    first, second = by_turns(rounds(quick), ours, script)
    return Row(
        f"warm submit, one file of {FILES} changed, RTT {rtt * 1000:.0f} ms",
        statistics.median(first),
        statistics.median(second),
        "s",
        0.75 if rtt else None,
        samples={"ours": first, "by hand": second},
    )


def one_after_another(made: Bench, quick: bool) -> Iterator[Row]:
    """Many jobs over one invocation: round trips for each after the first."""
    count, rtt = (6 if quick else 50), 0.05
    jobs = [made.job(made.project, name=f"many-{number:02d}") for number in range(count)]
    made.submit(jobs[0])
    with link(made, rtt) as proxy:
        made.submit(jobs[0], port=proxy.port)
        one = proxy.trace.round_trips
        proxy.count_anew()
        opened = proxy.trace.connections
        began = time.time()
        made.submit(*jobs, port=proxy.port)
        took = time.time() - began
        each = (proxy.trace.round_trips - one) / (count - 1)
        connections = proxy.trace.connections - opened
    for number, _ in enumerate(jobs[1:]):
        jobs[number + 1].unlink()
    name = f"{count} runs over one invocation, RTT {rtt * 1000:.0f} ms"
    yield Row(
        f"{name}: round trips each after the first",
        each,
        2,
        "round trips",
        1.0,
        against="allowed",
        note=f"{took:.2f} s in all",
    )
    yield Row(f"{name}: connections", connections, 1, "connections", 1.0, against="allowed")


def submit(made: Bench, job: Path, proxy: Proxy) -> float:
    began = time.time()
    made.submit(job, port=proxy.port)
    return made.first_line_after(began)


def by_hand(made: Bench, proxy: Proxy) -> float:
    """The script people write: copy what changed, then start it so that it outlives the connection."""
    began = time.time()
    made.run(made.rsync("-az", f"{made.project}/", "box:by-hand/", port=proxy.port))
    start = f"cd by-hand && MARK={made.mark} nohup sh -c '{FIRST_LINE}' > log 2>&1 < /dev/null &"
    made.run([*made.ssh(port=proxy.port), start])
    return made.first_line_after(began)


def counted(proxy: Proxy, into: list[int], action: Callable[[], float]) -> Callable[[], float]:
    def side() -> float:
        proxy.count_anew()
        took = action()
        into.append(proxy.trace.round_trips)
        return took

    return side


if __name__ == "__main__":
    main()
