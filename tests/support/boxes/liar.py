"""A box that lies: where the embedded box would start gpurun's agent, an agent of the test's own answers over the same SSH.

It is the real one except for the verbs that the test replaces, so that a run may start honestly and be lied about later.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.box import Box
from tests.support.cli import REPOSITORY

# In place of every python3 on the box: what is not the start of an agent is handed on. The bootstrap's own code runs, and then finds
# this agent loaded already.
SHIM = """#!{python}
import os, sys
if sys.argv[1:4] != ["-I", "-S", "-c"] or sys.argv[-1] != "remote_payload.agent":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
sys.path[:0] = [{repository!r}, {folder!r}]
import lies
from remote_payload.agent import __main__, serve
honest = serve.find_verb
serve.find_verb = lambda verb: getattr(lies, str(verb), None) or honest(verb)
if hasattr(lies, "instead"):
    __main__.main = lambda words, early: lies.instead(words[1])  # speaks for itself on 0 and 1
code = sys.argv[4]
del sys.argv[1:5]
exec(code)
"""


class Liar:
    """``liar.says(source)``: from the next connection on, the functions of ``source`` (each ``def <verb>(request)``) answer."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shim = folder / "python3"
        shim.write_text(SHIM.format(python=sys.executable, repository=str(REPOSITORY), folder=str(folder)))
        shim.chmod(0o755)
        self.says("")
        box.configure(PATH=f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")

    def says(self, source: str) -> None:
        """``instead(nonce)`` replaces the agent as a whole, from its first byte."""
        (self.folder / "lies.py").write_text(source)


@pytest.fixture
def liar(box: Box, tmp_path: Path) -> Liar:
    """The embedded box of the test's ``gpurun``, lying."""
    return Liar(box, tmp_path / "liar")
