"""Starts the payload: forked, paused until its pid is on the disk, then executed. No shell reads its command."""

import errno
import os
import signal
import sys
from typing import Dict, List, NamedTuple, NoReturn, Optional, Sequence, Tuple

from remote_payload.agent.box import badge, daemon

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # a shell's exit codes for these errors
# Another process of the agent, from the same zipapp or source tree: isolated from the user's PYTHON* variables and site packages.
STARTER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from remote_payload.agent.__main__ import main; main()"


def agent_command(*arguments: str) -> List[str]:
    """The argv that starts this agent again with ``arguments``."""
    origin = os.path.abspath(__file__).rpartition("/remote_payload/agent/")[0]
    return [sys.executable, "-I", "-S", "-c", STARTER, origin, *arguments]


def box_environment() -> Dict[str, str]:
    """The box's own variables, without those of this SSH session and of any other run."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "GPURUN_"))}


def search_path(interpreter: Optional[str], variables: Dict[str, str]) -> str:
    """The payload's PATH: the job's own if it sets one, else the box's with the interpreter's folder first."""
    if "PATH" in variables:
        return variables["PATH"]
    path = os.environ.get("PATH") or STANDARD_PATH
    return "%s:%s" % (os.path.dirname(interpreter), path) if interpreter else path


def program(word: str, interpreter: Optional[str], variables: Dict[str, str]) -> str:
    """The program that a command's first word names. ``python`` is the run's own interpreter, since many boxes have only python3, or
    another version under that name; but not where the job sets PATH itself."""
    return interpreter if interpreter and word in ("python", "python3") and "PATH" not in variables else word


class PausedChild(NamedTuple):
    """A child that has not executed the payload yet; ``permission`` and ``failure`` are ends of its pipes."""

    pid: int
    permission: int
    failure: int

    def execute(self) -> Optional[str]:
        """Lets the child execute the payload; None once it runs, or why it could not (the same line is in its log).

        A child that a signal has ended meanwhile counts as one that ran: its exit status says what ended it.
        """
        try:
            os.write(self.permission, b"g")
        except BrokenPipeError:
            pass
        os.close(self.permission)
        with os.fdopen(self.failure, "rb") as failure:
            return failure.read().decode("utf-8", "replace") or None


def fork_paused(
    run_id: str, argv: Sequence[str], folder: str, environment: Dict[str, str], log: str, dies_with_us: bool = False
) -> PausedChild:
    """Forks a child in a session of its own, with the run's badge and the log as its output; it executes nothing before ``execute``.

    Should the supervisor die first, the child ends by itself; with ``dies_with_us`` the payload does, whenever that is. Only to be
    called while there is one thread.
    """
    waiting, permission = os.pipe()
    failure, failing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(permission)
        _become(run_id, argv, folder, environment, log, waiting, failing, dies_with_us)
    os.close(waiting)
    os.close(failing)
    os.read(failure, 1)  # it has its session and its badge now, or has ended
    return PausedChild(pid, permission, failure)


def _become(
    run_id: str,
    argv: Sequence[str],
    folder: str,
    environment: Dict[str, str],
    log: str,
    waiting: int,
    failing: int,
    dies_with_parent: bool,
) -> NoReturn:
    status = NOT_EXECUTABLE
    try:
        os.setsid()
        badge.set_badge(run_id)
        if dies_with_parent:
            daemon.die_with_parent()
        os.write(failing, b"s")
        output = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        _reset_signals()
        daemon.set_oom_score("0")  # the supervisor asks to be spared when memory runs out; the payload is not
        if os.read(waiting, 1):
            os.chdir(folder)
            os.execvpe(argv[0], list(argv), environment)
    except OSError as failure:
        status, line = refusal(failure, argv[0], environment)
        os.write(2, line.encode("utf-8", "replace") + b"\n")
        os.write(failing, line.encode("utf-8", "replace"))
    finally:
        os._exit(status)


def refusal(failure: OSError, program: str, environment: Dict[str, str]) -> Tuple[int, str]:
    """The exit status, as a shell's, and the line for a program that could not be executed."""
    # Where a folder of PATH may not be read, execvpe reports that instead of "not found".
    missing = _is_not_in_path(program, environment)
    error = OSError(errno.ENOENT, os.strerror(errno.ENOENT)) if missing else failure
    status = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
    return status, "gpurun: cannot start %r: %s" % (program, _why(error, program, environment))


def _is_not_in_path(program: str, environment: Dict[str, str]) -> bool:
    folders = environment.get("PATH", "").split(":")
    return "/" not in program and not any(os.path.exists(os.path.join(folder, program)) for folder in folders)


def _why(error: OSError, program: str, environment: Dict[str, str]) -> str:
    there = "/" in program and os.path.exists(program)
    if error.errno == errno.ENOENT and there:
        return "the interpreter that its first line names is not on the box"
    if error.errno == errno.ENOENT and "/" in program:
        return "no such file in the code that was pushed"
    if error.errno == errno.ENOENT:
        return "not found in PATH (%s)" % environment.get("PATH", "")
    if error.errno == errno.EACCES and there:
        return "it is not executable: chmod +x it, or name its interpreter in the command"
    if error.errno == errno.ENOEXEC:
        return "neither a program nor a script that begins with #!"
    return error.strerror or str(error)


def _reset_signals() -> None:
    """Sets all signals as a shell under nohup does: Python ignores SIGPIPE, and the supervisor blocks the signals that it waits for."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
