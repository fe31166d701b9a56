"""What the verb ``launch`` is asked for: read once, every value with its type checked."""

from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.marks import Expected, read_expected
from remote_payload.agent.wire.paths import KEY

ALL = "all"  # GPUs: as many as the box has


class Code(NamedTuple):
    """Where the run's code comes from: the attempt ``incoming`` that a push wrote, or the code of the run ``link_from``, or nowhere."""

    incoming: Optional[str] = None
    link_from: Optional[str] = None
    digest: str = ""
    read_at: Optional[int] = None  # when the laptop last saw that it was so, by the laptop's clock
    expected: Expected = Expected(None)
    # Never asked for: the box itself takes the code of ``link_from`` as its record lists it, but nothing at or below these paths.
    without: Optional[Tuple[str, ...]] = None


class DataLink(NamedTuple):
    """The data ``key`` appears in the code at ``path``; ``member`` is the name of its only file, where the data is one file."""

    path: Optional[str]
    key: str
    member: Optional[str]


class Resume(NamedTuple):
    """The run whose outputs this one begins with, and the checkpoint that it goes on from.

    ``outputs`` is the key of the data that holds those outputs, where the laptop brought them from another box.
    """

    run_id: str
    checkpoint: str
    outputs: Optional[str] = None


class Boxes(NamedTuple):
    """What one of the boxes of a run on several is told: how many they are, which it is, and where that of rank 0 is.

    ``interface`` is its own one to the others; the supervisors know each other by ``word``.
    """

    size: int
    rank: int
    address: str
    rendezvous: int  # ports of rank 0: of torchrun's rendezvous, and of its supervisor
    supervisors: int
    interface: str
    word: str


class LaunchRequest(NamedTuple):
    """One run as it was asked for. ``secrets`` come into no file and no error."""

    run_id: str
    job: Dict[str, Any]  # the resolved job, kept as job.json
    code: Code
    data: Tuple[DataLink, ...]
    outputs: Tuple[str, ...]
    interpreter: Optional[str]
    payload: Optional[str]  # the sha256 of the training package
    command: Tuple[str, ...]  # either this or the module
    module: Optional[str]
    torchrun: bool
    processes: Optional[int]
    variables: Dict[str, str]
    secrets: Dict[str, str]
    gpus: Union[int, str]  # a number, or ALL
    queue: bool
    time_limit: Optional[float]  # seconds
    cost_limit: Optional[float]  # seconds that the job's money lasts
    log_limit: Optional[int]  # bytes
    resume: Optional[Resume]
    continues: Optional[str] = (
        None  # the run whose place it takes and with whose outputs it begins, if not the one of ``resume``
    )
    vram: int = 0  # bytes of memory that each GPU must have
    disk: int = 0  # bytes that the run will write by its forecast: it waits in the queue until there is room
    group: Optional[str] = (
        None  # a name that runs of one submission share which differ in the seed alone, for ``keep_finished``
    )
    slurm: Optional[Dict[str, Any]] = None  # what the job says for Slurm; None where the box itself runs it
    boxes: Optional[Boxes] = None  # where the run is on several boxes

    def __repr__(self) -> str:
        return "LaunchRequest(%r)" % self.run_id  # the fields hold secrets


def read(asked: Fields) -> LaunchRequest:
    """The request. Raises AgentError for a field of another type."""
    return LaunchRequest(
        run_id=asked.run_id(),
        job=asked.mapping("job"),
        code=_read_code(asked.fields("code")),
        data=tuple(map(_read_data, asked.list_of_fields("data"))),
        outputs=tuple(asked.texts("outputs")),
        interpreter=asked.optional_text("interpreter"),
        payload=asked.optional_text("payload"),
        command=tuple(asked.texts("command")),
        module=asked.optional_text("module"),
        torchrun=asked.flag("torchrun"),
        processes=asked.optional_whole("processes"),
        variables=asked.text_by_name("variables"),
        secrets=asked.text_by_name("secrets"),
        gpus=_read_gpus(asked),
        queue=asked.flag("queue"),
        time_limit=asked.optional_number("time_limit"),
        cost_limit=asked.optional_number("cost_limit"),
        log_limit=asked.optional_whole("log_limit"),
        resume=_read_resume(asked.optional_fields("resume")),
        continues=asked.run_id("continues") if "continues" in asked else None,
        vram=max(0, asked.whole("vram")),
        disk=max(0, asked.whole("disk")),
        group=_read_group(asked),
        slurm=_read_slurm(asked),
        boxes=read_boxes(asked.optional_fields("boxes")),
    )


def to_keep(asked: LaunchRequest) -> Dict[str, Any]:
    """The request as ``launch.json`` keeps it, so that the box can start the same again: without the secrets, and without the job
    and the code, which have records of their own. ``read`` reads it.
    """
    left_out = ("secrets", "job", "code", "data", "resume", "boxes")
    kept = {name: value for name, value in asked._asdict().items() if name not in left_out}
    data = [each._asdict() for each in asked.data]
    return dict(kept, data=data, resume=asked.resume._asdict() if asked.resume else None)


def _read_code(asked: Fields) -> Code:
    return Code(
        asked.optional_text("incoming") or None,
        asked.optional_text("link_from") or None,
        asked.text("digest"),
        asked.optional_whole("read_at"),
        read_expected(asked),
    )


def _read_data(asked: Fields) -> DataLink:
    return DataLink(asked.optional_text("path"), asked.text("key"), asked.optional_text("member"))


def _read_gpus(asked: Fields) -> Union[int, str]:
    if asked.is_a("gpus", str) and asked.text("gpus") == ALL:
        return ALL
    wanted = asked.whole("gpus")
    if wanted < 0:
        raise AgentError("LaunchError", "%d GPUs" % wanted)
    return wanted


def _read_group(asked: Fields) -> Optional[str]:
    group = asked.optional_text("group")
    if group is not None and not KEY.fullmatch(group):
        raise AgentError("LaunchError", "unusable name of a group of runs")
    return group


def _read_slurm(asked: Fields) -> Optional[Dict[str, Any]]:
    if "slurm" not in asked:
        return None
    options = asked.mapping("slurm")
    for name, value in options.items():
        printable = isinstance(value, str) and value.isprintable() and 0 < len(value) < 256
        if value is not None and not printable and not isinstance(value, (bool, int)):
            raise AgentError("LaunchError", "slurm.%.50s cannot be given to Slurm" % name)
    return options


def _read_resume(asked: Optional[Fields]) -> Optional[Resume]:
    if asked is None:
        return None
    return Resume(asked.run_id(), asked.text("checkpoint") or "auto", asked.optional_text("outputs"))


def read_boxes(asked: Optional[Fields]) -> Optional[Boxes]:
    """Raises AgentError for a field of another type."""
    if asked is None:
        return None
    return Boxes(
        asked.whole("size"),
        asked.whole("rank"),
        asked.text("address"),
        asked.whole("rendezvous"),
        asked.whole("supervisors"),
        asked.text("interface"),
        asked.text("word"),
    )
