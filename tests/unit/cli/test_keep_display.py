"""What ``gpurun keep`` says while it stays, and how it tells that a run is over."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from runner.cli import keep_display
from runner.domain.answers.status import Status
from runner.domain.answers.verbs import Kept
from runner.domain.errors import UserError
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.workflow.keeping.board import Board, KeptRun, Line, would_be_lost
from runner.workflow.keeping.outcome import End, parse_command, tell

HOUR = 3600.0
RUN = "x-20260101-000000-0000"


def kept(*, behind: float = 0.0, home_at: float | None = None, **status: object) -> KeptRun:
    """A run that began at 1000 by the box's clock, which was at 1600 when it was last asked, ``behind`` seconds ago."""
    facts = {"started_at": 1000.0, "now": 1600.0, "phase": "running", **status}
    run = Run(RUN, Job("x"), "box", 0.0, launched=True)
    run.status, run.status_at = Status(RUN, **facts), time.time() - behind  # type: ignore[arg-type]
    home = Kept("step-000005", "checkpoints/step-000005", 5, {}, 1, True, home_at) if home_at else None
    return KeptRun(run, home)


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=2)


def test_what_would_be_lost_is_the_work_since_the_newest_checkpoint_that_is_here() -> None:
    assert kept().lost_seconds == about(600)
    assert kept(home_at=1480.0).lost_seconds == about(120)
    assert kept(home_at=900.0).lost_seconds == about(600), "the checkpoint is from before the run was resumed"
    assert kept(home_at=1480.0, behind=HOUR).lost_seconds == about(120 + HOUR), "it goes on while nobody can ask"
    ended = kept(home_at=1480.0, behind=HOUR, phase="finished", outcome="succeeded", ended_at=1500.0)
    assert ended.lost_seconds == about(20)
    ended.over = True
    assert ended.lost_seconds is None and would_be_lost(ended) == ""
    assert kept(started_at=None).lost_seconds is None
    assert would_be_lost(kept(home_at=1480.0)) == "; 2.0 minutes of work would be lost now"


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def test_a_pipe_gets_lines_and_a_quiet_run_one_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    lines = keep_display.Lines(said)
    lines.line(Line("a \x1b]0;title\x07line"))
    lines.line(Line("trouble", urgent=True))
    for _ in range(5):
        lines.show([kept(home_at=1480.0)])
    assert said.lines == [
        "a line",
        "warning: trouble",
        f"{RUN}: running , step-000005 is home; 2.0 minutes of work would be lost now",
    ]
    monkeypatch.setattr(keep_display, "LINES_EVERY", 0.0)
    lines.show([kept()])
    assert said.lines[-1] == f"{RUN}: running , no checkpoint is home; 10.0 minutes of work would be lost now"


def test_a_terminal_gets_a_table_and_nothing_that_a_box_says_is_markup() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        table = keep_display.Table(live)
        one = kept(home_at=1480.0)
        one.doing = "fetch [bold]2[/] files"
        table.line(Line("[red]x[/] is home"))
        table.show([one])
    shown = out.getvalue()
    for text in ("would be lost", "2.0 min", "step-000005", "fetch [bold]2[/] files", "[red]x[/] is home"):
        assert text in shown


def test_a_command_for_the_end_is_words_and_not_a_shell() -> None:
    assert parse_command(None) == ()
    assert parse_command("sh -c 'echo $HOME; ls *' \"a b\"") == ("sh", "-c", "echo $HOME; ls *", "a b")
    for wrong in ("", "'", "no-such-program x"):
        with pytest.raises(UserError):
            parse_command(wrong)


@pytest.mark.stand_in  # for a desktop: a program of that name that writes down its arguments
@pytest.mark.skipif(sys.platform != "linux", reason="notify-send is Linux's")
def test_an_end_is_told_to_the_desktop_and_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    desktop = tmp_path / "notify-send"
    desktop.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/shown\nexit 1\n')
    desktop.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    board = Board([])
    tell(End(RUN, "failed", "/home/me/out"), ("sh", "-c", "env; exit 3"), board).join()
    assert (tmp_path / "shown").read_text().splitlines() == ["--", "gpurun: failed", f"{RUN} is home"]
    out, err = capfd.readouterr()
    assert out == "" and f"GPURUN_ENDED_RUN={RUN}\n" in err and "GPURUN_ENDED_OUTCOME=failed\n" in err
    assert "GPURUN_ENDED_PLACE=/home/me/out\n" in err and "GPURUN_RUN_ID" not in err
    assert board.lines.get_nowait() == Line(f"{RUN}: --on-end sh ended with 3", urgent=True)


def test_without_a_desktop_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    board = Board([])
    tell(End(RUN, "lost", ""), (), board).join()
    assert board.lines.empty()
