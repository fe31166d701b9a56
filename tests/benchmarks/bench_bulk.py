"""2 GiB there and back, and one changed file of 50 MB.

    python -m tests.benchmarks.bench_bulk [--quick]

The fetch verifies on both ends: the box's manifest holds a sha256 that was made when the run ended, and every byte that arrives
is hashed before it gets its final name. By hand it is a bare ``rsync -a``, which verifies nothing.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.box import MEMORY, Bench, bench, link
from tests.benchmarks.inside import pushing
from tests.benchmarks.measure import Row, compare, rounds, run_piece, seconds

PART = 256 << 20


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    parts = 1 if quick else 8
    with bench(MEMORY) as made:
        yield push_much(made, parts, quick)
    with bench(MEMORY) as made:
        yield fetch_much(made, parts, quick)
    with bench(MEMORY) as made:
        yield fetch_changed(made)


def fill(folder: Path, parts: int) -> None:
    """Incompressible files of 256 MiB, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(parts):
        with open(folder / f"part-{number}.bin", "wb") as file:
            for at in range(PART >> 24):
                file.write(random.Random(number * 1000 + at).randbytes(1 << 24))


def push_much(made: Bench, parts: int, quick: bool) -> Row:
    fill(made.project, parts)
    numbers = itertools.count()

    def by_hand() -> float:
        target = made.server.home / f"copy-{next(numbers)}"
        took = seconds(lambda: made.run(made.rsync("-a", f"{made.project}/", f"box:{target}/")))
        shutil.rmtree(target)
        return took

    with pushing(made, made.project) as push:
        name = f"first push of {parts * PART / 2**30:.2f} GiB, RTT 0"
        return compare(name, push, by_hand, count=rounds(quick), unit="s", bound=0.9)


def fetch_much(made: Bench, parts: int, quick: bool) -> Row:
    run_id = run_with_outputs(made, f"cp {made.folder}/source/*.bin out/", lambda: fill(made.folder / "source", parts))
    outputs = made.server.home / ".gpurun-box" / "runs" / run_id / "outputs" / "out"
    shutil.rmtree(made.folder / "source")
    target = made.folder / "fetched"

    def ours() -> float:
        took = seconds(lambda: made.gpurun("fetch", run_id, "--into", str(target)))
        shutil.rmtree(target)
        return took

    def by_hand() -> float:
        took = seconds(lambda: made.run(made.rsync("-a", f"box:{outputs}/", f"{target}/")))
        shutil.rmtree(target)
        return took

    name = f"fetch of {parts * PART / 2**30:.2f} GiB, verified on both ends, RTT 0"
    return compare(name, ours, by_hand, count=rounds(quick), unit="s", bound=1.15)


def fetch_changed(made: Bench) -> Row:
    """Bytes on the wire when 1 % of a file of 50 MB has changed, as 100 runs of 5 KB scattered over it."""
    size, source = 50_000_000, made.folder / "big.bin"
    source.write_bytes(random.Random(1).randbytes(size))
    script = f"cp {source} out/big.bin; while [ ! -e {made.folder}/go ]; do sleep 0.05; done"
    run_id = run_with_outputs(made, script, lambda: None, wait=False)
    there = made.server.home / ".gpurun-box" / "runs" / run_id / "outputs" / "out" / "big.bin"
    (made.folder / "go").touch()
    made.gpurun("logs", run_id, "-f")
    target = made.folder / "fetched"
    with link(made) as proxy:
        repoint(made, run_id, proxy.port)
        made.gpurun("fetch", run_id, "--into", str(target))
        change(there, size)
        (there.parents[2] / "manifest.json").unlink()  # as a run that goes on would have none
        proxy.count_anew()
        made.gpurun("fetch", run_id, "--into", str(target))
        crossed = proxy.trace.bytes("to client") + proxy.trace.bytes("to server")
    if (target / "out" / "big.bin").read_bytes() != there.read_bytes():
        raise RuntimeError("what was fetched is not what is there")
    return Row(
        "one file of 50 MB fetched again, 1 % changed: bytes on the wire",
        crossed,
        size,
        "bytes",
        0.03,
        against="of the file",
    )


def change(file: Path, size: int) -> None:
    with open(file, "r+b") as target:
        for number in range(100):
            target.seek(number * (size // 100) + 1234)
            target.write(os.urandom(size // 100 // 100))


def run_with_outputs(made: Bench, script: str, before: object, wait: bool = True) -> str:
    """A finished (or waiting) run whose payload is this shell script."""
    before()  # type: ignore[operator]
    job = made.job(made.project, name="outputs", command=["sh", "-c", f"{script}; date +%s.%N > $MARK"])
    run_id = made.submit(job)[0]
    if wait:
        made.first_line_after(time.time())
        made.gpurun("logs", run_id, "-f")
    return run_id


def repoint(made: Bench, run_id: str, port: int) -> None:
    """Has the run's record say that its box is behind the proxy."""
    import json

    file = made.home / "runs" / run_id / "run.json"
    record = json.loads(file.read_text())
    record["host"] = made.typed(port)
    file.write_text(json.dumps(record))


if __name__ == "__main__":
    main()
