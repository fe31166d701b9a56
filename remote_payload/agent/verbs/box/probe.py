"""Verb ``probe``: what the box is, and what is there already, in one request. It cannot hang: a fact that is late is unknown."""

import os
import shutil
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, cast

from remote_payload.agent.box import bounded, gpus, hardware, incoming, machine, place, snapshot
from remote_payload.agent.box.pythons import interpreters, torch_build
from remote_payload.agent.run import spawn
from remote_payload.agent.run.queue import allotment, health
from remote_payload.agent.verbs import patch, seal
from remote_payload.agent.verbs.box import install_payload
from remote_payload.agent.verbs.box.provision import parse_ranges, wants_gpus
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.paths import KEY, SHA256, BoxPaths
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.box_facts import Base, CodeThere, GivenFacts, GpuFacts, Probed, Slurm, TorchFacts

LIMIT = 20.0  # seconds for everything; a healthy box needs less than one
GPU_MAX = 64
PARTITION_MAX = 100
NO_CODE: "CodeThere" = {"code": None, "link_dest": None, "patch": None}


def probe(request: Request) -> "Probed":
    """The facts that ARCHITECTURE.md lists. ``gpus`` is None where the driver does not answer in time.

    ``problems`` says for each unknown fact why; ``disk.error`` why nothing can be written.
    """
    asked, paths = read(request.fields()), request.paths
    _make_room(asked, paths)
    questions: Dict[str, Callable[[], Any]] = {
        "gpus": lambda: _gpus(paths),
        "cuda": machine.cuda,
        "disk": lambda: machine.disk(paths.root),
        "place": lambda: place.place(paths.root),
        "rsync": machine.rsync,
        "ram": lambda: hardware.ram()["total"],
        "ram_free": hardware.ram_free,
        "cpus": hardware.cpus,
        "shm": machine.shm,
        "slurm": _slurm,
        **{"have." + name: ask for name, ask in _possessions(asked, paths).items()},
    }
    answers = bounded.gather(questions, LIMIT)
    problems = {name: machine.text(answer) for name, answer in answers.items() if isinstance(answer, BaseException)}
    facts = {name: None if name in problems else answer for name, answer in answers.items()}
    have = {name[len("have.") :]: facts.pop(name) for name in list(facts) if name.startswith("have.")}
    have["program"] = _program(asked, paths, have.get("interpreter"))
    have["torch"] = _torch(asked, paths, have.get("interpreter")) if asked.try_torch else None
    have.update(have["code"] or NO_CODE)
    facts["disk"] = facts["disk"] or machine.NO_DISK
    return cast("Probed", {**machine.static_facts(paths), **facts, "have": have, "problems": problems})


class Data(NamedTuple):
    """Data that a submission would push: its key, and the digest that it would be sealed with."""

    key: str
    digest: str


class ProbeRequest(NamedTuple):
    """What a submission asks about. Each field may be null; then its question is not answered."""

    run_id: Optional[str]
    job_name: str
    code_digest: str
    data: List[Data]
    env_key: str
    payload: str
    python: Optional[str]
    requirements: Optional[List[str]]
    interpreters: List[str]  # more places to look
    interpreter: str  # the one that the job names
    program: str  # the first word of the command
    variables: Dict[str, str]
    gpus: bool  # whether the job uses any
    try_torch: bool  # whether torch is asked for the GPUs, which takes seconds

    @property
    def pushed(self) -> List[str]:
        """The names below ``incoming/`` that the submission pushes to."""
        return [self.run_id, *(each.key for each in self.data)] if self.run_id else []


def read(asked: Fields) -> ProbeRequest:
    """The request. Keys that could be more than the name of a folder are left out. Raises AgentError for a field of another type."""
    data = [Data(each.text("key"), each.text("digest")) for each in asked.list_of_fields("data")]
    env_key, payload = asked.text("env_key"), asked.text("payload")
    return ProbeRequest(
        run_id=asked.run_id() if "run_id" in asked else None,
        job_name=asked.text("job_name"),
        code_digest=asked.text("code_digest"),
        data=[each for each in data if KEY.fullmatch(each.key)],
        env_key=env_key if KEY.fullmatch(env_key) else "",
        payload=payload if SHA256.fullmatch(payload) else "",
        python=asked.optional_text("python"),
        requirements=asked.texts("requirements") if "requirements" in asked else None,
        interpreters=asked.texts("interpreters"),
        interpreter=asked.text("interpreter"),
        program=asked.text("program"),
        variables=asked.text_by_name("variables"),
        gpus=wants_gpus(asked),
        try_torch=asked.flag("try_torch"),
    )


def _make_room(asked: ProbeRequest, paths: BoxPaths) -> None:
    """For a submission: the folders that rsync will write below. A disk that takes none shows under ``disk``."""
    for name in asked.pushed:
        try:
            incoming.make_room(paths, name)
        except OSError:
            pass


def _possessions(asked: ProbeRequest, paths: BoxPaths) -> Dict[str, Callable[[], Any]]:
    """Questions about what is there already, each answered only where the request names it."""
    return {
        "code": lambda: _code(paths, asked.code_digest, asked.job_name),
        "data": lambda: {each.key: seal.has_data(paths, each.key, each.digest) for each in asked.data},
        "data_link_dest": lambda: {each.key: earlier_version(paths, each.key) for each in asked.data},
        "attempts": lambda: {name: incoming.earlier(paths, name) for name in asked.pushed},
        "env": lambda: bool(asked.env_key) and os.path.exists(_env_python(paths, asked)),
        "payload": lambda: bool(asked.payload) and install_payload.is_intact(paths.payload(asked.payload)),
        "interpreter": lambda: None if asked.interpreter else _interpreter(asked),
        "given": lambda: _given(asked) if asked.interpreter else None,
    }


def _env_python(paths: BoxPaths, asked: ProbeRequest) -> str:
    return os.path.join(paths.env(asked.env_key), "bin", "python")


def _code(paths: BoxPaths, digest: str, job: str) -> "CodeThere":
    """The run that has exactly this code, or else what to send less with: a base for rsync, or for a patch."""
    if not digest or not job:
        return NO_CODE
    found = snapshot.find_code(paths, digest)
    if found:
        return {"code": found, "link_dest": None, "patch": None}
    latest = snapshot.latest_code(paths, job)
    base: "Optional[Base]" = {"path": latest, "read_at": snapshot.read_at(latest)} if latest else None
    return {"code": None, "link_dest": base, "patch": patch.offer(paths, job)}


def _program(asked: ProbeRequest, paths: BoxPaths, found: Optional[str]) -> Optional[str]:
    """Where the command's first word is, in the PATH that the payload would have now; None where it is in none of its folders."""
    if not asked.program:
        return None
    if asked.interpreter:
        own: Optional[str] = os.path.expanduser(asked.interpreter)
    elif found or not asked.env_key:
        own = found
    else:
        own = _env_python(paths, asked) if os.path.exists(_env_python(paths, asked)) else None
    word = spawn.program(asked.program, own, asked.variables)
    return shutil.which(word, path=spawn.search_path(own, asked.variables))


def _interpreter(asked: ProbeRequest) -> Optional[str]:
    """An interpreter that has everything that is required, None where there is none or the requirements cannot be read."""
    ranges = None if asked.requirements is None else parse_ranges(asked.requirements)
    if ranges is None:
        return None
    cuda = interpreters.driver_cuda()
    found = interpreters.find_satisfying(asked.interpreters, asked.python, ranges, cuda)
    return found.path if found else None


def _given(asked: ProbeRequest) -> "GivenFacts":
    """What the interpreter that the job names lacks; requirements that cannot be read here are not looked at."""
    try:
        given = interpreters.ask(os.path.expanduser(asked.interpreter))
    except (OSError, ValueError, KeyError) as error:
        return {"error": machine.text(error), "missing": [], "torch": None}
    cuda = interpreters.driver_cuda() if asked.gpus else None
    lacks = interpreters.lacks(given, parse_ranges(asked.requirements or []) or [], cuda)
    return {"error": None, "missing": [machine.text(each) for each in lacks.missing], "torch": lacks.torch}


def _torch(asked: ProbeRequest, paths: BoxPaths, found: Optional[str]) -> "Optional[TorchFacts]":
    """How many GPUs torch can use in the interpreter that the run would get; None where there is no such yet, no driver or no answer."""
    wanted = any(each.name == "torch" for each in parse_ranges(asked.requirements or []) or [])
    if not asked.gpus or not wanted or interpreters.driver_cuda() is None:
        return None
    path = os.path.expanduser(asked.interpreter) if asked.interpreter else found
    if not path and asked.env_key and os.path.exists(_env_python(paths, asked)):
        path = _env_python(paths, asked)
    try:
        usable = torch_build.ask(path) if path else None
    except (OSError, ValueError, KeyError):  # the run asks again
        return None
    return {"interpreter": path or "", "gpus": usable.gpus, "why": machine.text(usable.why)} if usable else None


def earlier_version(paths: BoxPaths, key: str) -> "Optional[Base]":
    """The newest other ``data/<name>-<digest>`` of the same name: what rsync takes unchanged files from."""
    folder, prefix = os.path.dirname(paths.data(key)), key.rpartition("-")[0] + "-"
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix) and name != key and KEY.fullmatch(name)]
        names = [name for name in names if name.rpartition("-")[0] + "-" == prefix]
        newest = max(names, key=lambda name: os.path.getmtime(os.path.join(folder, name)), default=None)
    except OSError:
        return None
    return {"path": os.path.join(folder, newest), "read_at": seal.read_at(paths, newest)} if newest else None


def _slurm() -> "Optional[Slurm]":
    if shutil.which("sbatch") is None:
        return None
    from remote_payload.agent.box import slurm  # for clusters alone

    found: "Slurm" = {"version": "", "partitions": [], "error": None, "containers": False}
    try:
        found["version"] = machine.text(
            slurm.version()
        )  # fails where the programs are there, and no cluster is configured
        found["partitions"] = [
            {"name": machine.text(name), "gpus": machine.text(gpus)}
            for name, gpus in slurm.partitions()[:PARTITION_MAX]
        ]
        found["containers"] = slurm.knows_containers()
    except slurm.SlurmError as error:
        found["error"] = machine.text(error)
    return found


def _gpus(paths: BoxPaths) -> "Optional[List[GpuFacts]]":
    found = gpus.list_gpus()
    if found is None:
        return None
    held, aside = allotment.holders(paths, found) if found else {}, health.set_aside(paths)
    return [
        {
            "index": gpu.number,
            "uuid": machine.text(gpu.uuid),
            "name": machine.text(gpu.name),
            "memory_total": gpu.memory_total,
            "memory_used": gpu.memory_used,
            "utilisation": gpu.utilisation,
            "held_by": machine.text(held[allotment.name(gpu)]) if allotment.name(gpu) in held else None,
            "set_aside": machine.text(aside[allotment.name(gpu)].in_words()) if allotment.name(gpu) in aside else None,
        }
        for gpu in found[:GPU_MAX]
    ]
