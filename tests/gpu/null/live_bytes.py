"""The bytes that tensors hold on the null GPU, as CUDA's caching allocator would hand them out, and the most there were."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ROUNDING = 512  # bytes: what the allocator hands out is a multiple of it


class LiveBytes:
    """Counts each storage once, from the operator that made it until nothing refers to it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.live = self.peak = 0
        self.held: dict[int, tuple[int, str]] = {}
        self.at_peak: Counter[str] = Counter()
        self.explain = False  # keep what the peak consisted of, by operator; slow
        self._counting = True

    def restart_peak(self) -> None:
        self.peak = self.live

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """Inside, new storages are no memory of the device: a real GPU would not see them either."""
        before, self._counting = self._counting, False
        try:
            yield
        finally:
            self._counting = before

    def saw(self, storage: torch.UntypedStorage, made_by: str) -> None:
        """A storage of the device. Raises OutOfMemoryError, as the allocator would, when the device has no room for it."""
        key = storage._cdata
        if key in self.held or not self._counting:
            return
        size = rounded(storage.nbytes())
        self._room_for(size)
        self.held[key] = (size, made_by)
        weakref.finalize(storage, self._gone, key)
        self._add(size)

    def resized(self, storage: torch.UntypedStorage) -> None:
        """FSDP2 frees gathered parameters by resizing their storage to nothing, and takes them back the same way."""
        before = self.held.get(storage._cdata)
        if before is not None:
            size = rounded(storage.nbytes())
            self.held[storage._cdata] = (size, before[1])
            self._add(size - before[0])

    def _room_for(self, size: int) -> None:
        if self.live + size > self.capacity:
            raise torch.OutOfMemoryError(f"the null GPU holds {self.live:,} bytes and has no room for {size:,} more")

    def _add(self, size: int) -> None:
        self.live += size
        if self.live > self.peak:
            self.peak = self.live
            if self.explain:
                self.at_peak = Counter()
                for held, made_by in self.held.values():
                    self.at_peak[made_by] += held

    def _gone(self, key: int) -> None:
        size, _ = self.held.pop(key, (0, ""))
        self.live -= size


def rounded(size: int) -> int:
    return -(-size // ROUNDING) * ROUNDING
