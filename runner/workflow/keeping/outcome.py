"""Tells that a run is over: a command of the user's, and a notification on the desktop where there is one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from runner.domain.errors import UserError
from runner.workflow.keeping.board import Board, KeptRun

PATIENCE = 10.0  # seconds for a notification
NOT_THERE = (OSError, subprocess.SubprocessError)
# AppleScript that takes both texts as arguments: nothing in them is read as a program.
_APPLESCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)


def parse_command(written: str | None) -> tuple[str, ...]:
    """The words of ``--on-end``, split as a shell splits them and not expanded. Raises UserError for a program that is not here."""
    if written is None:
        return ()
    try:
        words = shlex.split(written)
    except ValueError as error:
        raise UserError(
            f"--on-end {written!r} cannot be split into words: {error}", meaning="Nothing was done."
        ) from None
    if not words or shutil.which(os.path.expanduser(words[0])) is None:
        raise UserError(
            f"--on-end: there is no program {words[0] if words else ''!r} on this machine",
            meaning="Nothing was done.",
            hint="Name a program and its arguments. No shell reads them; sh -c '…' is one.",
        )
    return os.path.expanduser(words[0]), *words[1:]


@dataclass(frozen=True)
class End:
    """How one run ended, as its teller is told: ``outcome`` as in the status, ``unknown`` where that was never heard; ``place`` is the
    folder on this machine, "" where nothing came home."""

    run_id: str
    outcome: str
    place: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of ``--on-end``. Not GPURUN_RUN_ID, by which a box knows the processes of a run."""
        return {
            "GPURUN_ENDED_RUN": self.run_id,
            "GPURUN_ENDED_OUTCOME": self.outcome,
            "GPURUN_ENDED_PLACE": self.place,
        }


def end_of(kept: KeptRun) -> End:
    """How a run that is over here ended."""
    status = kept.run.status
    return End(kept.run.run_id, (status.outcome if status else None) or "unknown", kept.into or "")


def tell(end: End, command: Sequence[str], board: Board) -> threading.Thread:
    """Tells of one end in a thread of its own, so that a command that takes long delays no other run."""
    thread = threading.Thread(target=_tell, args=(end, command, board), daemon=True)
    thread.start()
    return thread


def _tell(end: End, command: Sequence[str], board: Board) -> None:
    _notify(f"gpurun: {end.outcome}", f"{end.run_id} {'is home' if end.place else 'is over'}")
    if not command:
        return
    try:
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),  # stdout is the command's own result
            env={**os.environ, **end.variables},
        ).returncode
    except NOT_THERE as error:
        return board.warn(f"{end.run_id}: --on-end did not start: {error}")
    if code:
        board.warn(f"{end.run_id}: --on-end {command[0]} ended with {code}")


def _notify(title: str, text: str) -> None:
    """Shows a notification where this desktop can. Nothing depends on it."""
    if sys.platform == "darwin":
        words = ["osascript", *(word for line in _APPLESCRIPT for word in ("-e", line)), title, text]
    else:
        words = ["notify-send", "--", title, text]
    if program := shutil.which(words[0]):
        try:
            subprocess.run([program, *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        except NOT_THERE:
            return
