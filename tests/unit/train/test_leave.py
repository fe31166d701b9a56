"""How the process of a recipe ends: with its code, and of several ranks without what libraries do when an interpreter is torn down."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, os, sys
from remote_payload.train.run import leave

class Library:
    def __del__(self, write=os.write):
        write(1, b"torn down\\n")

sys.kept = Library()
atexit.register(sys.stdout.write, "finished\\n")
print("done")
leave(3)
"""


@pytest.mark.parametrize(
    ("variables", "said"), [({}, "done\nfinished\ntorn down\n"), ({"RANK": "0"}, "done\nfinished\n")]
)
def test_a_rank_ends_without_tearing_its_interpreter_down(variables: dict[str, str], said: str) -> None:
    # Its output is a pipe, so it lies in a buffer when the process ends.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, env={**os.environ, **variables}
    )
    assert (done.returncode, done.stdout) == (3, said), done.stderr
