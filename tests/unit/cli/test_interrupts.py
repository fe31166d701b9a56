"""Ctrl-C at the moments at which Python itself does the wrong thing."""

import subprocess
import sys
from pathlib import Path

START = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, {folder!r})
from runner.cli import interrupts
"""
SLOW = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.1)
os.write(1, b"loaded, ")
"""


def said(folder: Path, program: str) -> tuple[int, str]:
    """How the program ended, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-c", START.format(folder=str(folder)) + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_a_module_is_loaded_to_its_end_before_the_interrupt_is_raised(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    program = """
try:
    with interrupts.raised():
        import slow
        time.sleep(30)
except KeyboardInterrupt:
    print("interrupted", "slow" in sys.modules)
"""
    assert said(tmp_path, program) == (0, "loaded, interrupted True\n")


def test_an_interrupt_that_a_finalizer_swallowed_is_raised_all_the_same(tmp_path: Path) -> None:
    program = """
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
try:
    with interrupts.raised():
        Swallows()
        time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert said(tmp_path, program) == (0, "interrupted\n")


def test_after_the_command_ctrl_c_ends_the_process_without_a_word(tmp_path: Path) -> None:
    program = """
with interrupts.raised():
    pass
os.kill(os.getpid(), signal.SIGINT)
"""
    assert said(tmp_path, program) == (-2, "")


def test_who_ignores_ctrl_c_goes_on_doing_so(tmp_path: Path) -> None:
    program = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interrupts.raised():
    os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGINT)
print("went on")
"""
    assert said(tmp_path, program) == (0, "went on\n")


RAISES = """
from runner.cli import group
@group.gpurun.command("elsewhere")
def elsewhere():
    raise {error}
group.COMMANDS["elsewhere"] = ("elsewhere", "")
sys.modules["runner.cli.elsewhere"] = type(sys)("elsewhere")
sys.modules["runner.cli.elsewhere"].command = elsewhere
group.run(["elsewhere"])
"""


def test_a_broken_pipe_is_quiet_only_where_it_is_our_output(tmp_path: Path) -> None:
    code, words = said(tmp_path, RAISES.replace("{error}", "BrokenPipeError(32, 'Broken pipe')"))
    assert code == 1 and words.startswith("error: ") and "Broken pipe" in words


def test_words_that_python_gave_an_interrupt_are_not_shown(tmp_path: Path) -> None:
    words = "KeyboardInterrupt(\"encoding with 'idna' codec failed (KeyboardInterrupt: )\")"
    code, told = said(tmp_path, RAISES.replace("{error}", words))
    assert code == 130 and "Interrupted. What runs on the box goes on" in told and "idna" not in told


def test_an_end_of_file_that_nobody_expected_is_no_ctrl_c(tmp_path: Path) -> None:
    code, words = said(tmp_path, RAISES.replace("{error}", "EOFError()"))
    assert code == 1 and "error: EOFError" in words and "Interrupted" not in words
