import os
import signal
import sys
import threading

import pytest

from remote_payload.agent.box.command import LINE_LIMIT, CommandCancelled, CommandFailed, run


def python(source, **options):
    lines = []
    run([sys.executable, "-c", source], lines.append, **options)
    return lines


def test_lines_of_both_streams_come_one_by_one_and_carriage_returns_end_them():
    assert python("import sys; print('a\\rb'); sys.stderr.write('c\\n\\n'); print('d', end='')") == ["a", "b", "c", "d"]


def test_a_failure_carries_its_status_and_the_last_thirty_lines():
    with pytest.raises(CommandFailed, match="ended with status 3") as failure:
        python("print(*range(100), sep='\\n'); raise SystemExit(3)")
    assert failure.value.status == 3
    assert failure.value.lines == [str(number) for number in range(70, 100)]


def test_a_line_without_an_end_costs_no_memory():
    (line,) = python("import sys\nfor _ in range(64): sys.stdout.write('x' * (1 << 20))")
    assert line == "x" * LINE_LIMIT


def test_a_child_that_keeps_the_pipe_open_does_not_hold_the_command_up():
    started = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    )
    (pid,) = python(started)
    os.kill(int(pid), signal.SIGKILL)


def test_a_command_that_ignores_term_is_killed_when_nobody_waits_for_it(monkeypatch):
    monkeypatch.setattr("remote_payload.agent.box.command.GRACE", 0.2)
    cancelled = threading.Event()
    seen = []

    def report(line):
        seen.append(int(line))
        cancelled.set()

    stubborn = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
    )
    with pytest.raises(CommandCancelled):
        run([sys.executable, "-c", stubborn], report, cancelled=cancelled.is_set)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_a_command_that_closes_its_output_is_still_waited_for(tmp_path):
    done = tmp_path / "done"
    python(f"import os, time; os.close(1); os.close(2); time.sleep(0.3); open({str(done)!r}, 'w')")
    assert done.exists()


def test_descriptors_to_keep_are_inherited_and_no_others():
    _, write = os.pipe()
    other, _ = os.pipe()
    source = f"import os\nfor fd in ({write}, {other}):\n  try: os.fstat(fd); print('open')\n  except OSError: print('closed')"
    assert python(source, keep_open=[write]) == ["open", "closed"]


def test_a_program_that_is_not_there_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        run(["/nonexistent/program"], print)
