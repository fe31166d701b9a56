"""Verb ``provision``: an interpreter with the packages a run needs, in the cheapest way that this box allows."""

import functools
import os
import re
import shutil
import time
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from remote_payload.agent.box import command, locks, tools
from remote_payload.agent.box.command import CommandCancelled, CommandFailed
from remote_payload.agent.box.pythons import builders, contents, interpreters, requirement, torch_build
from remote_payload.agent.box.pythons.interpreters import Interpreter
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.paths import KEY
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Provisioned

OLDEST_PYTHON = (3, 10, 0)  # what current releases of torch and transformers still run on
INSTALL_UV = "curl -LsSf https://astral.sh/uv/install.sh | sh"
DEFAULT_PYTHON = "3.12"  # what uv is asked for on a box that has nothing newer than that

# Patterns in the last lines of pip or uv, and what to do about each.
HINTS = (
    (
        r"No space left on device|os error 28|Disk quota exceeded",
        "The disk of the box is full: gpurun clean shows what it may delete.",
    ),
    (
        r"name resolution|dns error|Network is unreachable|Connection refused|ConnectError|establish a new connection",
        "The box cannot reach the package index. A mirror can be named there: UV_DEFAULT_INDEX, PIP_INDEX_URL.",
    ),
    (
        r"No solution found|No matching distribution|ResolutionImpossible|conflicting dependencies|not found in the package",
        "These cannot be had together for this Python: change environment.requirements or environment.python.",
    ),
    (
        r"command '.*(gcc|cc|c\+\+|g\+\+)' failed|Python\.h",
        "A package is compiled on the box: apt-get install -y gcc python3-dev there, or pin a version that has a wheel.",
    ),
)


Run = Callable[..., None]


class Wanted(NamedTuple):
    """What the request asks for. ``ranges`` is None where only an installer can read the requirements."""

    key: str
    python: Optional[str]
    requirements: str
    ranges: Optional[List[requirement.Requirement]]
    interpreter: Optional[str]
    named: List[str]
    gpus: bool  # whether the job uses any
    prove: bool  # an environment that is there has to be whole, file by file, or is built anew


def provision(request: Request) -> "Provisioned":
    """``{interpreter, how: given·found·reused·built·overlaid, seconds, installer, missing, torch}``; progress ``{line}``.

    The interpreter that the job names is used as it is; else the environment of this key if it exists, else an interpreter of
    the box that has everything, else a layer over one that has the right torch, and only then a new environment.
    ``missing`` are the requirements that a given interpreter lacks, ``torch`` is why its torch cannot use the box's GPU.
    Raises AgentError EnvironmentFailed.
    """
    started = time.monotonic()
    wanted = _read(request.fields("EnvironmentFailed"))
    final = request.paths.env(wanted.key)
    cuda = interpreters.driver_cuda()
    lacks = interpreters.Lacks([], None)
    if wanted.interpreter:
        used, how, installer = _given(wanted.interpreter), "given", None
        lacks = _lacks(used, wanted, cuda if wanted.gpus else None)
    else:
        used, how, installer = _provide(request, wanted, final, cuda)
    seconds = round(time.monotonic() - started, 3)
    return {
        "interpreter": used.path, "how": how, "seconds": seconds, "installer": installer,
        "missing": lacks.missing, "torch": lacks.torch,
    }  # fmt: skip


def _lacks(given: Interpreter, wanted: Wanted, cuda: Optional[int]) -> interpreters.Lacks:
    """What a given interpreter lacks. Where its files show nothing wrong, torch itself is asked, while the push goes on."""
    lacks = interpreters.lacks(given, wanted.ranges or [], cuda)
    uses_torch = any(each.name == "torch" for each in wanted.ranges or ())
    if cuda is None or not uses_torch or lacks.missing or lacks.torch:
        return lacks
    try:
        usable = torch_build.ask(given.path)
    except (OSError, ValueError, KeyError):  # the run asks again
        return lacks
    return lacks if usable.gpus else lacks._replace(torch=usable.why or "torch cannot use the GPU and gives no reason")


def _provide(
    request: Request, wanted: Wanted, final: str, cuda: Optional[int]
) -> Tuple[Interpreter, str, Optional[str]]:
    existing = _existing(final, wanted.prove)
    if existing:
        return existing, "reused", None
    there = interpreters.find(wanted.named)
    found = None if wanted.ranges is None else interpreters.satisfying(there, wanted.python, wanted.ranges, cuda)
    if found:
        return found, "found", None
    with _building(request, final) as (partial, run):
        existing = _existing(final, wanted.prove)
        if existing:
            return existing, "reused", None  # another submit has built it while we waited
        shutil.rmtree(final, ignore_errors=True)  # it lost files, or its Python was removed with an earlier container
        how, installer = _build(request, wanted, partial, there, cuda, run)
        _verify(partial, wanted, cuda)
        builders.relocate(partial, final)
        contents.note(partial)
        os.rename(partial, final)
    return interpreters.ask(os.path.join(final, "bin", "python")), how, installer


def _read(asked: Fields) -> Wanted:
    key, python, text = asked.text("key"), asked.optional_text("python"), asked.text("requirements")
    if not KEY.fullmatch(key):
        raise AgentError("EnvironmentFailed", "not a key of an environment: %.100r" % key)
    if python is not None and not re.fullmatch(r"3(\.\d{1,2}){1,2}", python):
        raise AgentError("EnvironmentFailed", "not a version of Python: %.100r" % python)
    ranges = parse_ranges(asked.texts("ranges") or [text])
    interpreter, named = asked.optional_text("interpreter"), asked.texts("interpreters")
    return Wanted(key, python, text, ranges, interpreter, named, wants_gpus(asked), asked.flag("prove"))


def wants_gpus(asked: Fields) -> bool:
    """Whether the job's ``gpus`` (a number or "all") is not 0; False where the request does not name them."""
    return asked.text("gpus") == "all" if asked.is_a("gpus", str) else bool(asked.optional_whole("gpus"))


def parse_ranges(lines: Sequence[str]) -> Optional[List[requirement.Requirement]]:
    """Lines as requirements; None where a line has more than a name and versions."""
    try:
        return requirement.parse("\n".join(lines))
    except ValueError:
        return None


def _given(path: str) -> Interpreter:
    try:
        return interpreters.ask(os.path.expanduser(path))
    except (OSError, ValueError, KeyError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        hint = "Correct environment.interpreter in the job file, or leave it out: one is then found or built."
        raise AgentError("EnvironmentFailed", "%s on the box cannot be used: %s" % (path, why), hint) from None


def _existing(final: str, prove: bool) -> Optional[Interpreter]:
    if prove and contents.problem(final):
        return None
    try:
        return interpreters.ask(os.path.join(final, "bin", "python"))
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def _building(request: Request, final: str) -> Iterator[Tuple[str, Run]]:
    """Locks this key; gives a temporary name beside ``final`` and a function that runs commands. A failed build leaves no files."""
    os.makedirs(os.path.dirname(final), exist_ok=True)
    partial = "%s.partial-%d" % (final, os.getpid())
    with _lock(final, request) as lock:
        _remove_leftovers(final)
        try:
            run = functools.partial(
                command.run,
                report=lambda line: request.progress({"line": line}),
                cancelled=request.cancelled.is_set,
                keep_open=[lock],  # where the agent is killed, its command holds the lock until it ends
            )
            yield partial, run
        except CommandFailed as failed:
            raise _explain(failed) from None
        except CommandCancelled:
            raise AgentError("EnvironmentFailed", "the build was cancelled; nothing of it is left") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(final: str, request: Request) -> Iterator[int]:
    """Held by the request that builds ``final``; others wait and report it. In memory: network volumes have no flock."""
    path = os.path.join(locks.make_volatile(), "env-%08x.lock" % zlib.crc32(os.fsencode(final)))
    descriptor = locks.take(path)
    half_seconds = 0
    while descriptor is None:
        if half_seconds % 20 == 0:
            waited = half_seconds // 2
            request.progress({"line": "another submit builds this environment; waiting (%d s)" % waited})
        if request.cancelled.is_set():
            raise AgentError("EnvironmentFailed", "cancelled while another submit builds the environment")
        half_seconds += 1
        descriptor = locks.take_within(path, 0.5)
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # its file stays: a command that runs longer than this process may still hold it


def _remove_leftovers(final: str) -> None:
    folder, name = os.path.split(final)
    for other in os.listdir(folder):
        if other.startswith(name + ".partial-"):
            shutil.rmtree(os.path.join(folder, other), ignore_errors=True)


def _build(
    request: Request, wanted: Wanted, partial: str, there: Sequence[Interpreter], cuda: Optional[int], run: Run
) -> Tuple[str, str]:
    """Builds ``partial``; gives how and with which installer."""
    variables = builders.variables(request.paths.root, there, cuda)
    run = functools.partial(run, variables=variables)
    if variables.get("UV_TORCH_BACKEND"):
        wanted = wanted._replace(requirements=builders.without_cuda(wanted.requirements))
    return _layer(request, wanted, partial, there, cuda, run) or _new(request, wanted, partial, there, run)


def _layer(
    request: Request, wanted: Wanted, partial: str, there: Sequence[Interpreter], cuda: Optional[int], run: Run
) -> Optional[Tuple[str, str]]:
    """Adds the missing packages to an interpreter that has the right torch, which alone is gigabytes. None where that fails."""
    torch = [each for each in wanted.ranges or () if each.name == "torch"]
    base = interpreters.satisfying(there, wanted.python, torch, cuda) if torch else None
    if base is None:
        return None
    request.progress({"line": "%s has torch: adding what it lacks" % base.path})
    lacking = interpreters.missing(base, wanted.ranges or [], cuda)
    try:
        builders.build_over(partial, base, lacking, wanted.requirements, run)
    except CommandFailed as failed:
        request.progress({"line": "%s: building a new environment instead" % failed})
        shutil.rmtree(partial, ignore_errors=True)
        return None
    return "overlaid", "pip"


def _new(request: Request, wanted: Wanted, partial: str, there: Sequence[Interpreter], run: Run) -> Tuple[str, str]:
    tools_folder = os.path.join(request.paths.root, "tools")
    base = _of_version(wanted.python, there)
    uv = builders.find_uv(tools_folder) or builders.install_uv(tools_folder, there, run)
    if uv:
        asked = base.path if base else wanted.python or DEFAULT_PYTHON
        try:
            builders.build_with_uv(uv, partial, asked, wanted.requirements, run)
        except CommandFailed as failed:
            if base is None and "venv" in failed.command:
                raise _no_python(asked, there, failed) from None
            raise
        return "built", "uv"
    if base is None:
        message = "Python %s is not on the box, and uv, which could fetch it, cannot be had" % (
            wanted.python or "≥ 3.10"
        )
        hint = "Name a Python that is there in environment.python, or type on the box: " + INSTALL_UV
        raise AgentError("EnvironmentFailed", message, hint)
    if not base.makes_environments():
        package = "python%d.%d-venv" % base.version[:2]  # a package of its own on Debian and Ubuntu
        try:
            tools.install([package], lambda line: request.progress({"line": line}))
        except AgentError as error:
            raise AgentError("EnvironmentFailed", error.message, error.hint) from None
    builders.build_with_pip(partial, base, wanted.requirements, run)
    return "built", "pip"


def _no_python(asked: str, there: Sequence[Interpreter], failed: CommandFailed) -> AgentError:
    """The error where uv could not download Python, which does not come from the package index."""
    versions = sorted({each.version[:2] for each in there if each.version >= OLDEST_PYTHON}, reverse=True)
    has = "; the box has %s" % ", ".join("%d.%d" % version for version in versions) if versions else ""
    message = "the environment could not be built: cannot download Python %s%s\n%s" % (asked, has, failed.last_lines())
    hint = (
        'Take what is there: environment: {python: "%d.%d"}.' % versions[0]
        if versions
        else "Install a Python on the box."
    )
    return AgentError("EnvironmentFailed", message, hint)


def _of_version(python: Optional[str], there: Sequence[Interpreter]) -> Optional[Interpreter]:
    return next((each for each in there if each.is_version(python) and (python or each.version >= OLDEST_PYTHON)), None)


def _verify(partial: str, wanted: Wanted, cuda: Optional[int]) -> None:
    built = interpreters.ask(os.path.join(partial, "bin", "python"))
    lacking = interpreters.missing(built, wanted.ranges or [], cuda)
    if not lacking:
        return
    version = built.installed().get("torch")
    if [each.name for each in lacking] == ["torch"] and lacking[0].accepts(version or ""):
        message = "torch %s is built for a newer CUDA than the driver %s runs" % (
            version,
            interpreters.driver_release(),
        )
        raise AgentError("EnvironmentFailed", message, "Rent a box with a newer driver, or pin an older torch.")
    names = ", ".join(each.text for each in lacking)
    raise AgentError("EnvironmentFailed", "the locked requirements lack packages that are needed: %s" % names)


def _explain(failed: CommandFailed) -> AgentError:
    hint = next((hint for pattern, hint in HINTS if re.search(pattern, "\n".join(failed.lines))), "")
    return AgentError(
        "EnvironmentFailed", "the environment could not be built: %s\n%s" % (failed, failed.last_lines()), hint
    )
