"""What the box reports of itself: the answer of ``probe``, and the samples of the hardware while a run is on it. Bytes, epoch seconds.

``runner/domain/answers/box.py`` reads and checks them. The agent imports this file for type checking only.
"""

from typing import Dict, List, Optional, TypedDict


class Disk(TypedDict):
    """The filesystem of the root. ``error`` says why nothing can be written there."""

    total: int
    free: int
    inodes_free: Optional[int]  # None where the filesystem counts none
    writable: bool
    error: Optional[str]


class Place(TypedDict):
    """Where the root lies."""

    kind: str  # of the box: runpod, vast, lambda, container, machine
    box_id: Optional[str]  # the provider's name for the box
    folder: str  # that holds the root
    volume: Optional[str]  # a folder that survives a stop, where ``folder`` does not
    network: bool  # a network filesystem
    own_mount: bool  # a mount of its own, neither the container's disk nor memory
    lost_by: str  # the least that deletes it: stop; destroy (of the box); volume (when that is deleted); unknown


class GpuFacts(TypedDict):
    """One GPU; ``held_by`` is the run that has it, ``set_aside`` says why no run is given it. ``utilisation`` in per cent."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    utilisation: Optional[int]
    held_by: Optional[str]
    set_aside: Optional[str]


class Base(TypedDict):
    """A tree that a push may take files from; ``read_at``: when, by the laptop's clock, it last checked that its files were the same."""

    path: str
    read_at: Optional[int]


class PatchOffer(TypedDict):
    """The marks (base64, in the order of paths) of the code of a run, for a patch."""

    run_id: str
    marks: str
    read_at: Optional[int]


class CodeThere(TypedDict):
    """The run that has exactly the code that was asked about, else a base for rsync and one for a patch."""

    code: Optional[str]
    link_dest: Optional[Base]
    patch: Optional[PatchOffer]


class GivenFacts(TypedDict):
    """The interpreter that the job names: why it cannot be used, the requirements that it lacks, why its torch cannot use the GPU."""

    error: Optional[str]
    missing: List[str]
    torch: Optional[str]


class TorchFacts(TypedDict):
    """The answer of torch itself, in the interpreter of this path: how many GPUs it can use; ``why`` where it is none."""

    interpreter: str
    gpus: int
    why: str


class Have(CodeThere):
    """What of the submission is on the box already, and where its interpreter and its program are."""

    data: Optional[Dict[str, bool]]
    data_link_dest: Optional[Dict[str, Optional[Base]]]
    attempts: Optional[Dict[str, List[str]]]
    env: Optional[bool]
    payload: Optional[bool]
    interpreter: Optional[str]
    given: Optional[GivenFacts]
    torch: Optional[TorchFacts]
    program: Optional[str]


class Tools(TypedDict):
    """``uv`` is its path."""

    uv: Optional[str]
    git: bool


class StaticFacts(TypedDict):
    """The facts that are quickly known. ``obstacle`` says why gpurun cannot install anything."""

    root: str
    user: str
    home: str
    python: str
    os: str
    machine: str
    in_container: bool
    boot_id: Optional[str]
    driver: Optional[str]
    apt: bool
    obstacle: Optional[str]
    install_rsync: str
    tools: Tools


class Partition(TypedDict):
    """A partition of a Slurm cluster, and the GPUs of its nodes as Slurm names them ("gpu:a100:8"), "" for none."""

    name: str
    gpus: str


class Slurm(TypedDict):
    """What a login node says of its cluster: the default partition first. ``error`` is why the controller does not answer;
    ``containers``: srun starts programs in them (pyxis)."""

    version: str
    partitions: List[Partition]
    error: Optional[str]
    containers: bool


class Probed(StaticFacts):
    """``probe``. A fact is None where it is unknown; ``problems`` says why, by the fact's name."""

    gpus: Optional[List[GpuFacts]]
    cuda: Optional[str]
    disk: Disk
    place: Optional[Place]
    rsync: Optional[str]
    ram: Optional[int]  # of the container where it is limited, else of the machine
    ram_free: Optional[int]  # what is not in use; file cache that can be dropped counts as free
    cpus: Optional[int]
    shm: Optional[int]
    slurm: Optional[Slurm]  # None where no job can be submitted to Slurm
    have: Have
    problems: Dict[str, str]


class GpuSample(TypedDict):
    """One GPU at one moment: degrees Celsius, watts, per cent, bytes. None where the driver does not report it."""

    index: int
    temperature: Optional[int]
    power: Optional[float]
    utilisation: Optional[int]
    memory_used: Optional[int]
    memory_total: Optional[int]


class Ram(TypedDict):
    """Memory of the container where it is limited, else of the machine."""

    used: Optional[int]
    total: Optional[int]


class DiskSpace(TypedDict):
    """The filesystem of a folder."""

    free: int
    total: int


class HardwareSample(TypedDict):
    """The event ``hardware``. ``cpu`` in per cent of the ``cpus`` that we may use, since the last sample."""

    gpus: Optional[List[GpuSample]]
    cpu: Optional[float]
    cpus: int
    ram: Ram
    disk: Optional[DiskSpace]
