"""``gpurun watch`` on a real terminal: what it shows at two sizes, that it follows a new size, and that it leaves the terminal as it was.

The pictures are of runs made from a seed. After a change of the layout: ``python -m tests.unit.cli.test_watch_screen`` writes them anew.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.agent import wait_until
from tests.support.observing.tmux import Tmux, needs_tmux, terminal

PICTURES = Path(__file__).with_name("watched")
FOOTER = "q leaves, the runs go on"
SIZES = {"80x24": (1, 80, 24), "200x50": (2, 200, 50)}


def draws(tmux: Tmux, runs: int) -> None:
    """Starts the picture of so many runs, and waits until it is whole: the footer is its last line."""
    tmux.type(f"clear; exec {sys.executable} -m tests.support.observing.watched {runs}")
    wait_until(lambda: FOOTER in tmux.lines)


def shows(tmux: Tmux, name: str) -> None:
    """Waits until the screen is this picture."""
    wanted = (PICTURES / name).read_text("utf-8").split("\n")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: tmux.lines == wanted, limit=20)
    got = tmux.lines
    assert got == wanted, "\n".join(got)


@needs_tmux
@pytest.mark.parametrize("name", SIZES)
def test_the_picture_at_this_size_is_the_one_that_was_looked_at(tmp_path: Path, name: str) -> None:
    runs, columns, rows = SIZES[name]
    with terminal(tmp_path, columns, rows) as tmux:
        draws(tmux, runs)
        shows(tmux, f"{name}.txt")


@needs_tmux
def test_a_new_size_is_followed(tmp_path: Path) -> None:
    with terminal(tmp_path, 130, 40) as tmux:
        draws(tmux, 1)
        assert len(tmux.lines) == 41
        tmux.resize(80, 24)
        shows(tmux, "80x24.txt")


@needs_tmux
@pytest.mark.parametrize("end", ["q", "C-c", "TERM"])
def test_the_terminal_is_as_before_however_it_ends(tmp_path: Path, end: str) -> None:
    before, after, pid = (tmp_path / name for name in ("before", "after", "pid"))
    with terminal(tmp_path, 80, 24) as tmux:
        tmux.type(f"stty -g > {before}; echo still here")
        wait_until(lambda: "still here" in tmux.lines)
        tmux.type(f"(echo $BASHPID > {pid}; exec {sys.executable} -m tests.support.observing.watched 1 2> /dev/null)")
        wait_until(lambda: FOOTER in tmux.lines)
        if end == "TERM":
            tmux.press("C-z")  # does nothing: the shell would have a screen that is not its own
            os.kill(int(pid.read_text()), signal.SIGTERM)
        else:
            tmux.press(end)
        wait_until(lambda: FOOTER not in tmux.lines)  # until then it would read what is typed
        tmux.type(f"stty -g > {after}")
        wait_until(lambda: after.exists() and after.read_text().endswith("\n"))
        assert before.read_text() == after.read_text()
        assert "still here" in tmux.lines and FOOTER not in tmux.lines


def main() -> None:
    for name, (runs, columns, rows) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder, terminal(Path(folder), columns, rows) as tmux:
            draws(tmux, runs)
            PICTURES.mkdir(exist_ok=True)
            (PICTURES / f"{name}.txt").write_text("\n".join(tmux.lines), "utf-8")


if __name__ == "__main__":
    main()
