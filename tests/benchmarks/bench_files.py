"""20,000 small files: sent for the first time, in memory and on the disk, and found unchanged.

    python -m tests.benchmarks.bench_files [--quick]

The first push is timed without what comes before and after it (the connection that gpurun has by then, the launch); by hand it is the
one command that copies. On the disk nothing is deleted between two copies: ext4 looks past each inode that was freed within the last
minute, and making a file then takes six times as long. In memory each copy is, so that none is the first to touch its pages.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

from tests.benchmarks.box import DISK, FIRST_LINE, MEMORY, Bench, bench, write_tree
from tests.benchmarks.inside import pushing
from tests.benchmarks.measure import Row, by_turns, compare, rounds, run_piece, seconds

FILES, SIZE = 20_000, 4096
DIGEST = "find . -type f -printf '%P %s %T@ %m\\n' | LC_ALL=C sort | sha256sum"


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    files = 2000 if quick else FILES
    for place, where in ((MEMORY, "memory"), (DISK, "disk")):
        with bench(place) as made:
            write_tree(made.project, files, SIZE)
            yield from first_push(made, files, where, quick)
            if place == MEMORY:
                yield unchanged(made, files, quick)


def first_push(made: Bench, files: int, where: str, quick: bool) -> Iterator[Row]:
    ways = {
        "rsync -a": lambda target: made.rsync("-a", f"{made.project}/", f"box:{target}/"),
        "rsync -aW --inplace": lambda target: made.rsync("-aW", "--inplace", f"{made.project}/", f"box:{target}/"),
        "tar | ssh tar": lambda target: tar(made, target),
    }
    numbers = itertools.count()

    def by_hand(way: Callable[[str], list[str]]) -> Callable[[], float]:
        def copy() -> float:
            target = made.server.home / f"copy-{next(numbers)}"
            target.mkdir()
            os.sync()
            took = seconds(lambda: made.run(way(str(target))))
            if where == "memory":
                shutil.rmtree(target)
            return took

        return copy

    with pushing(made, made.project, keep=where == "disk") as push:

        def ours() -> float:
            os.sync()
            return push()

        samples = by_turns(rounds(quick), ours, *(by_hand(way) for way in ways.values()))
    medians = dict(zip(["ours", *ways], map(statistics.median, samples), strict=True))
    best = min(ways, key=lambda way: medians[way])
    kept = dict(zip(["ours", *ways], samples, strict=True))
    note = ", ".join(f"{way} {medians[way]:.2f} s" for way in ways)
    name = f"first push of {files} files of 4 KB, {where}"
    yield Row(f"{name}: beside the best ({best})", medians["ours"], medians[best], "s", 1.0, note=note, samples=kept)
    yield Row(f"{name}: beside rsync -a", medians["ours"], medians["rsync -a"], "s", 0.9)


def tar(made: Bench, target: str) -> list[str]:
    there = shlex.join(made.ssh()) + f" 'tar xf - -C {target}'"
    return ["sh", "-c", f"tar cf - -C {shlex.quote(str(made.project))} . | {there}"]


def unchanged(made: Bench, files: int, quick: bool) -> Row:
    job = made.job(made.project)

    def ours() -> float:
        began = time.time()
        made.submit(job)
        return made.first_line_after(began)

    def by_hand() -> float:
        """A digest of names, sizes, times and modes, and one command that starts what is there already."""
        began = time.time()
        subprocess.run(["sh", "-c", DIGEST], cwd=made.project, check=True, capture_output=True)
        made.run(
            [
                *made.ssh(),
                f"cd {shlex.quote(str(made.project))} && MARK={made.mark} nohup sh -c '{FIRST_LINE}' > /dev/null 2>&1 < /dev/null &",
            ]
        )
        return made.first_line_after(began)

    made.submit(job)
    made.first_line_after(time.time())
    return compare(
        f"warm submit, {files} files unchanged, RTT 0", ours, by_hand, count=rounds(quick), unit="s", bound=1.2
    )


if __name__ == "__main__":
    main()
