"""First push over 100 Mbit/s and 50 ms: text, many small files, and what cannot be compressed.

python -m tests.benchmarks.bench_slow_link [--quick]
"""

from __future__ import annotations

import itertools
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.box import Bench, bench, link, write_tree
from tests.benchmarks.inside import pushing
from tests.benchmarks.measure import Row, compare, rounds, run_piece, seconds
from tests.support.proxy import Proxy

RTT, RATE = 0.05, 12.5e6


def main() -> None:
    run_piece(__file__, rows)


def rows(quick: bool) -> Iterator[Row]:
    scale = 8 if quick else 1
    with bench() as made:
        text, small, noise = made.folder / "text", made.folder / "small", made.folder / "noise"
        write_tree(text, 64 // scale, 1 << 20, text=True)
        write_tree(small, 20_000 // scale, 4096, text=True)
        write_tree(noise, 192 // scale, 1 << 20)
        with link(made, RTT, RATE) as proxy:
            for folder, what in ((text, "text"), (small, "small files")):
                yield beside_rsync(made, proxy, folder, what, quick)
            yield beside_a_socket(made, proxy, noise, quick)


def beside_rsync(made: Bench, proxy: Proxy, folder: Path, what: str, quick: bool) -> Row:
    numbers = itertools.count()

    def by_hand() -> float:
        target = made.server.home / f"copy-{what[:4]}-{next(numbers)}"
        took = seconds(lambda: made.run(made.rsync("-az", f"{folder}/", f"box:{target}/", port=proxy.port)))
        shutil.rmtree(target)
        return took

    with pushing(made, folder, proxy.port) as push:
        name = f"first push of {what}, {size_of(folder) / 1e6:.0f} MB, 100 Mbit/s, 50 ms"
        return compare(name, push, by_hand, count=rounds(quick), unit="s", bound=1.05)


def beside_a_socket(made: Bench, proxy: Proxy, folder: Path, quick: bool) -> Row:
    size = size_of(folder)

    def raw() -> float:
        return size / seconds(lambda: through_a_socket(size)) / 1e6

    with pushing(made, folder, proxy.port) as push:
        name = f"first push of {size / 1e6:.0f} MB that cannot be compressed, 100 Mbit/s, 50 ms"
        return compare(
            name, lambda: size / push() / 1e6, raw, count=rounds(quick), unit="MB/s", bound=0.92, more_is_better=True,
            note="by hand: a raw socket",
        )  # fmt: skip


def through_a_socket(size: int) -> None:
    """As many bytes, one way, through a link of the same kind; over when the last has arrived and that has been said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            taker, _ = listener.accept()
            left = size
            while left:
                left -= len(taker.recv(1 << 16))
            taker.sendall(b"!")
            taker.close()

        threading.Thread(target=take, daemon=True).start()
        with (
            Proxy(listener.getsockname()[1], delay=RTT / 2, rate=RATE) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port)) as sender,
        ):
            sender.sendall(bytes(size))
            sender.recv(1)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
