"""A second thread for work that goes on at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def background_thread() -> Iterator[ThreadPoolExecutor]:
    """One thread, awaited at the end of the block.

    Where the block fails, or Ctrl-C ends it, the thread is not awaited: it ends when its connection is closed.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
