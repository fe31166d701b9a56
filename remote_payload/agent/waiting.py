"""First come, first served, for runs that wait for a GPU. Tickets are locks: one whose run was stopped or killed is passed over."""

import os
import time

from remote_payload.agent import locks


class Ticket:
    """A run's place in the queue of this box."""

    def __init__(self, run_id: str) -> None:
        self._folder = os.path.join(locks.make_volatile(), "queue")
        os.makedirs(self._folder, 0o700, exist_ok=True)
        self._name = "%020d-%s" % (time.time_ns(), run_id)
        descriptor = locks.take(os.path.join(self._folder, self._name))
        assert descriptor is not None  # nobody else has this name
        self._descriptor = descriptor

    def is_first(self) -> bool:
        """Whether nobody who is still waiting came before."""
        for name in sorted(os.listdir(self._folder)):
            if name == self._name:
                return True
            path = os.path.join(self._folder, name)
            if locks.is_held(path):
                return False
            abandoned = locks.take(path)
            if abandoned is not None:
                locks.drop(path, abandoned)
        return True

    def leave(self) -> None:
        """Gives up the place."""
        locks.drop(os.path.join(self._folder, self._name), self._descriptor)
