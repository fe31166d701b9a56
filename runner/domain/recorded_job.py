"""The job in a run's record: the JSON that ``Job.wire`` gave, here or in an older gpurun, back as a ``Job``.

Only types are checked. What a job file may say is checked where one is read (``runner/jobfile``): a run whose job would be refused
today must still be listed, followed and fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from runner.domain.answers.reading import (
    Fields,
    Impossible,
    Reader,
    T,
    boolean,
    finite_number,
    list_of,
    mapping_of,
    optional,
    otherwise,
    shown,
    single_line,
    string,
    whole,
)
from runner.domain.job import (
    Checkpoints,
    Code,
    DataFrom,
    Environment,
    Hub,
    Job,
    Resources,
    Settings,
    Slurm,
    SmokeTest,
    Tolerances,
)
from runner.domain.quantities import parse_duration, parse_size

_texts: Reader[tuple[str, ...]] = otherwise((), list_of(string))  # any text: [bash, -c, "two\nlines"]
_names: Reader[tuple[str, ...]] = otherwise((), list_of(single_line))


def read_job(value: object, folder: Path, file: Path | None = None, overrides: tuple[str, ...] | None = None) -> Job:
    """The recorded job, whose code and data lie in ``folder``. Fields that are missing get their defaults, unknown ones are ignored.

    Raises Impossible naming the field of another type.
    """
    job = Fields(value)
    found = Job(
        name=job("name", single_line),
        recipe=job("recipe", optional(single_line)),
        command=job("command", optional(list_of(string))),
        settings=job("settings", otherwise({}, _settings)),
        code=job("code", otherwise(Code(), _code)),
        data=job("data", otherwise((), list_of(_data))),
        environment=job("environment", otherwise(Environment(), _environment)),
        hub=job("hub", otherwise(Hub(), _hub)),
        resources=job("resources", otherwise(Resources(), _resources)),
        outputs=job("outputs", optional(list_of(single_line))),
        checkpoints=job("checkpoints", optional(_checkpoints)),
        progress=job("progress", optional(list_of(string))),
        smoke_test=job("smoke_test", otherwise(SmokeTest(), _smoke_test)),
        price_per_hour=job("price_per_hour", optional(finite_number)),
        cost_limit=job("cost_limit", optional(finite_number)),
        time_limit=job("time_limit", optional(_parsed(parse_duration))),
        secrets=job("secrets", _names),
        sweep=job("sweep", optional(_by_name(list_of(_anything)))),
        keep_finished=job("keep_finished", optional(whole)),
        queue=job("queue", otherwise(False, boolean)),
        slurm=job("slurm", optional(_slurm)),
    )
    return found.at(folder, file, overrides)


def _settings(value: object) -> Settings:
    """As they were recorded: their shape is the recipe's. What commands look up in them by themselves is checked."""
    settings = Fields(value)
    settings("evaluation", optional(lambda each: Fields(each)("metric", optional(single_line))))
    settings("prompts", optional(list_of(_anything)))
    settings("revision", optional(single_line))
    settings(
        "model", lambda model: Fields(model) if isinstance(model, dict) else optional(single_line)(model)
    )  # pretrain: a shape
    assert isinstance(value, dict)
    return value


def _code(value: object) -> Code:
    code = Fields(value)
    return Code(code("path", otherwise(".", single_line)), code("exclude", _texts), code("include", _texts))


def _data(value: object) -> str | DataFrom:
    if isinstance(value, str):
        return single_line(value)
    data = Fields(value)
    return DataFrom(data("path", single_line), data("as", single_line))


def _environment(value: object) -> Environment:
    environment = Fields(value)
    return Environment(
        python=environment("python", optional(single_line)),
        requirements=environment("requirements", _texts),
        interpreter=environment("interpreter", optional(single_line)),
        variables=environment("variables", otherwise({}, _by_name(string))),
    )


def _hub(value: object) -> Hub:
    hub = Fields(value)
    return Hub(hub("models", _names), hub("allow_write_token", otherwise(False, boolean)))


def _resources(value: object) -> Resources:
    resources = Fields(value)
    return Resources(
        gpus=resources("gpus", otherwise(1, _gpus)),
        vram=resources("vram", optional(_parsed(parse_size))),
        disk=resources("disk", optional(_parsed(parse_size))),
        processes=resources("processes", optional(whole)),
        boxes=resources("boxes", otherwise(1, whole)),
    )


def _gpus(value: object) -> int | Literal["all"]:
    return "all" if value == "all" else whole(value)


def _checkpoints(value: object) -> Checkpoints:
    checkpoints = Fields(value)
    return Checkpoints(*(checkpoints(name, optional(single_line)) for name in ("pattern", "complete_when")))


def _slurm(value: object) -> Slurm:
    slurm = Fields(value)
    word = optional(single_line)
    return Slurm(
        partition=slurm("partition", word),
        account=slurm("account", word),
        qos=slurm("qos", word),
        constraint=slurm("constraint", word),
        reservation=slurm("reservation", word),
        nodelist=slurm("nodelist", word),
        exclude=slurm("exclude", word),
        gpu_type=slurm("gpu_type", word),
        mem=slurm("mem", word),
        mem_per_gpu=slurm("mem_per_gpu", word),
        cpus_per_gpu=slurm("cpus_per_gpu", optional(whole)),
        cpus_per_task=slurm("cpus_per_task", optional(whole)),
        container=slurm("container", word),
        requeue=slurm("requeue", otherwise(False, boolean)),
    )


def _smoke_test(value: object) -> SmokeTest:
    smoke_test = Fields(value)
    return SmokeTest(
        enabled=smoke_test("enabled", otherwise(True, boolean)),
        tolerance=smoke_test("tolerance", otherwise(Tolerances(), _tolerances)),
    )


def _tolerances(value: object) -> Tolerances:
    tolerances = Fields(value)
    return Tolerances(*(tolerances(device, optional(finite_number)) for device in ("cpu", "mps", "cuda")))


def _parsed(parse: Reader[T]) -> Reader[T]:
    """What ``parse`` makes of text such as ``90.0s``, its ValueError as an Impossible."""

    def read(value: object) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise Impossible(f"{shown(value)} {error}") from None

    return read


def _by_name(read: Reader[T]) -> Reader[dict[str, T]]:
    """An object of such values, its names as they were written."""

    def read_all(value: object) -> dict[str, T]:
        mapping_of(read)(value)
        assert isinstance(value, dict)
        return {name: read(each) for name, each in value.items()}

    return read_all


def _anything(value: object) -> object:
    return value
