"""runner/workflow/observing/logs.py and what a terminal shows of a log and of other programs' lines."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from runner import files, store
from runner.cli.output import Shown
from runner.cli.render import one_line
from runner.domain import places
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run, mint_id
from runner.workflow.observing.logs import AGAIN, show

LINES = [b"line %d\n" % number for number in range(100)]


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    made = Run(mint_id("legal"), Job("legal"), "nowhere", time.time(), launched=True)
    store.create(made)
    (places.run_folder(made.run_id) / "log").write_bytes(b"".join(LINES))
    told = {"run_id": made.run_id, "phase": "finished", "outcome": "succeeded", "log_size": 790}
    files.write_json(places.run_folder(made.run_id) / "run.json", {**made.as_json(), "status": told})
    return store.load(made.run_id)


def shown(run, **options):
    found, notes = [], Notes()
    show(run, notes, found.append, until_end=True, **{"tail": None, **options})
    return b"".join(found), notes.said


def test_what_a_terminal_showed_before_is_not_shown_again_but_for_its_last_lines(run):
    assert shown(run) == (b"".join(LINES), [])
    seen = len(b"".join(LINES[:60]))
    text, notes = shown(run, shown=seen)
    assert text == b"".join(LINES[60 - AGAIN :]) and f"gpurun logs {run.run_id} prints all" in notes[0]
    assert shown(run, shown=seen, tail=3)[0] == b"".join(LINES[-3:])
    assert shown(run, shown=10_000)[0] == b"".join(LINES)  # another log than the one it was noted of


def test_how_much_was_shown_is_noted_however_the_showing_ends_and_for_a_terminal_only(run, monkeypatch):
    log = places.run_folder(run.run_id) / "log"
    for wanted, terminal, noted in ((True, False, 0), (False, True, 0), (True, True, 790)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda answer=terminal: answer)
        with pytest.raises(KeyboardInterrupt), Shown(log, wanted) as before:
            assert before == 0
            raise KeyboardInterrupt
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        with Shown(log, True) as after:
            assert after == noted
        (log.with_name(".shown")).unlink()


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("   ━━━━━━━━━━━╸━━━━ 10.2/21.1 MB 3.1 MB/s eta 0:00:04", "10.2/21.1 MB 3.1 MB/s eta 0:00:04"),
        ("Downloading torch\r 10%|████▌     | 1/10\r 20%|█████     | 2/10", "20%| | 2/10"),
        ("########## 100%", "100%"), ("⠙ Resolving", "Resolving"), ("torch-2.6  (from -r x)", "torch-2.6 (from -r x)"),
    ],
)  # fmt: skip
def test_other_programs_bars_are_not_drawn_into_ours(said, kept):
    assert one_line(said, 60) == kept


STOPPED = """
import sys
from runner.cli.output import LogPrinter
printer = LogPrinter(raw=True)
for number in range(400):
    printer(number.to_bytes(8, "big") + bytes((1 << 18) - 8))
"""


def test_a_reader_that_was_stopped_meanwhile_gets_every_byte():
    """Without a buffer of Python's a write that is stopped half-way takes a part only."""
    writer = subprocess.Popen([sys.executable, "-u", "-c", STOPPED], stdout=subprocess.PIPE)
    read = []
    reader = threading.Thread(target=lambda: read.extend(iter(lambda: writer.stdout.read1(1 << 16), b"")))
    reader.start()
    while writer.poll() is None:
        writer.send_signal(signal.SIGSTOP)
        time.sleep(0.002)
        writer.send_signal(signal.SIGCONT)
        time.sleep(0.002)
    reader.join()
    whole = b"".join(read)
    assert len(whole) == 400 << 18
    assert [int.from_bytes(whole[at : at + 8], "big") for at in range(0, len(whole), 1 << 18)] == list(range(400))
