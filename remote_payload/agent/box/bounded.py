"""Calls that may never come back (a hung driver, a dead network volume), each with a limit and a thread of its own.

The threads are daemons: one that hangs in the kernel does not keep the process alive.
"""

import threading
import time
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, TypeVar

Value = TypeVar("Value")


class Call(Generic[Value]):
    """One call under way in a thread."""

    def __init__(self, function: Callable[[], Value]) -> None:
        self._outcome: List[Value] = []
        self._error: Optional[BaseException] = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append(self._function())
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self, seconds: float) -> Value:
        """The result of the call. Raises what the call raised, or TimeoutError when it is still running after ``seconds``."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        if not self._outcome:
            raise TimeoutError("no answer in %g s" % seconds)
        return self._outcome[0]


def gather(calls: Mapping[str, Callable[[], Any]], seconds: float) -> Dict[str, Any]:
    """Runs all calls at once; a result for each within ``seconds`` of the start, or the exception it ended with."""
    deadline = time.monotonic() + seconds
    under_way = {name: Call(function) for name, function in calls.items()}
    results: Dict[str, Any] = {}
    for name, call in under_way.items():
        try:
            results[name] = call.result(max(0.0, deadline - time.monotonic()))
        except Exception as error:
            results[name] = error
    return results
