"""The rules for single fields of a job, each with a message that says how to write the field. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from remote_payload.tokens import find_token
from runner.domain import shell_words
from runner.domain.flow import flow
from runner.domain.quantities import parse_duration, parse_size

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

# The first part of a run id (``RUN_ID`` in remote_payload/agent/wire/paths.py) is the job's name.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OUTPUT = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,127}")
PATTERN = re.compile(r"[A-Za-z0-9._*?=-]{1,128}")
MARKER = re.compile(r"(?:[A-Za-z0-9._-]|\{name\}){1,128}")
DURATION = re.compile(r"(?:[0-9.]+[dhms]\s*)+", re.IGNORECASE)  # or what is meant as one
REPOSITORY = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
SLURM_MEMORY = re.compile(r"[1-9][0-9]{0,8}[KMGT]?")
PYTHON = re.compile(r"3\.(?:[89]|[1-9][0-9])(?:\.[0-9]{1,3})?")
# Set by gpurun for every payload; a job that sets them itself would break the run or leak the token.
RESERVED_VARIABLES = frozenset(
    ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "PYTHONUNBUFFERED")
)


@dataclass(frozen=True, eq=False)
class Rule:
    """A check of one field that pydantic makes when a job file is read, through its protocol for annotations
    (https://docs.pydantic.dev/latest/concepts/types/#handling-third-party-types). Nothing here loads pydantic, since every
    command reads jobs from records, and only a few read job files.

    ``check`` gives the value or raises ValueError. It runs on the value as it is written where ``before`` is true, else on one that
    has the field's type. ``schema`` replaces the field's JSON Schema.
    """

    check: Callable[..., object]
    schema: dict[str, object] | None = None
    before: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        checked = (
            core_schema.no_info_before_validator_function
            if self.before
            else core_schema.no_info_after_validator_function
        )
        return checked(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        return dict(self.schema or handler(core))


def _name(value: str) -> str:
    if NAME.fullmatch(value):
        return value
    plain = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:48].strip("-")
    raise ValueError(
        "must be at most 48 lower-case letters, digits and '-' (run ids begin with it)"
        + (f": write {flow(plain)}" if NAME.fullmatch(plain) else "")
    )


def _command(value: object) -> object:
    """A list of words; or a script of several lines, which bash runs up to its first line that fails."""
    if isinstance(value, str) and "\n" in value.strip():
        return ("bash", "-ec", value.strip())
    if isinstance(value, str) and value.strip():
        raise ValueError(f"must be a list of words: write {flow(shell_words.split(value))}")
    if value in ([], ""):
        raise ValueError("must not be empty: name the program, such as [python, train.py]")
    return _words(value)


def _gpus(value: object) -> object:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 64):
        return value
    raise ValueError(f"must be a whole number (0 to 64) or all{_gpus_advice(value)}")


def _gpus_advice(value: object) -> str:
    """``"1"``, ``1.0``, ``8x``, ``A100:8`` and ``ALL`` as they are written here."""
    if isinstance(value, float) and value in range(65):
        return f": write {int(value)}"
    if not isinstance(value, str):
        return ""
    if value.strip().lower() in ("all", "-1"):
        return ": write all"
    if re.fullmatch(r"[0-9]{1,2}", value.strip()) and int(value) <= 64:
        return f": write {int(value)} without quotes"
    counted = re.fullmatch(r"(?:[A-Za-z][\w-]*:([0-9]{1,2})|([0-9]{1,2})\s?[x×].*)", value.strip())
    number = int(counted[1] or counted[2]) if counted else 1 if re.fullmatch(r"[A-Za-z]{1,5}[0-9]\w*", value) else -1
    return f" (which GPU it is depends on the box): write {number}" if 0 <= number <= 64 else ""


def _size(value: object) -> object:
    return value if value is None else parse_size(value)


def _duration(value: object) -> object:
    return value if value is None else parse_duration(value)


def _variable(value: str) -> str:
    name, equals, _ = value.partition("=")
    if equals and VARIABLE.fullmatch(name) and flow(name) == name:  # not a token in its place
        raise ValueError(f"must be the name of an environment variable, without its value: write {name}")
    if not VARIABLE.fullmatch(value):
        raise ValueError("must be the name of an environment variable: letters, digits and '_'")
    if value in RESERVED_VARIABLES or value.startswith("GPURUN_"):
        raise ValueError(f"must not name {value}, which gpurun sets itself")
    return value


def _variable_value(value: str) -> str:
    kind = find_token(value.encode("utf-8"))
    if kind is not None:
        raise ValueError(
            f"must not hold {kind}: job files are kept and sent. Export it here and name the variable under secrets:"
        )
    return value


def _output(value: str) -> str:
    return _path_of(
        OUTPUT,
        value,
        "must be the name of a file or folder in the working directory, such as results/best, of letters, digits, "
        "'.', '_', '-' and '/'",
    )


def _pattern(value: str) -> str:
    return _path_of(
        PATTERN,
        value,
        "must be the path of a file or folder in the working directory, such as out/step_*, of letters, digits, '.', '_', '-', "
        "'=', '/' and the stars '*', '**', '?'",
    )


def _path_of(name: re.Pattern[str], value: str, wanted: str) -> str:
    """A path in the working directory whose names all match ``name``. Raises ValueError saying what is ``wanted``."""
    path = value.strip().removeprefix("./").rstrip("/")
    if not all(name.fullmatch(part) and part not in (".", "..") for part in path.split("/")) or len(path) > 512:
        raise ValueError(wanted)
    return path


def _complete_when(value: object) -> object:
    """A duration as seconds (``30s``), or a file's name as it is written."""
    if value is None:
        return None
    if not isinstance(value, str) or re.fullmatch(r"[0-9][0-9.]*", value) or DURATION.fullmatch(value.strip()):
        return f"{parse_duration(value):.3f}".rstrip("0").rstrip(".") + "s"
    if not MARKER.fullmatch(value) or value in (".", ".."):
        raise ValueError(
            "must be the name of a file that is written when a checkpoint is complete, such as DONE, or a time without any change, "
            "such as 30s"
        )
    return value


def _data_name(value: str) -> str:
    parts = value.split("/")
    if not value or value.startswith(("/", "~")) or ".." in parts or "\0" in value or value.strip("./") == "":
        raise ValueError("must be a path inside the working directory, such as data/corpus")
    return value


def _repository(value: str) -> str:
    if not is_repository(value):
        raise ValueError("must be a model of the hub, such as google/embeddinggemma-300m")
    return value


def _python(value: str) -> str:
    if PYTHON.fullmatch(value):
        return value
    if value == "3.1":
        raise ValueError(
            "must be a version of Python, such as '3.11' (3.10 without quotes becomes 3.1 in many tools): write '3.10'"
        )
    named = re.search(r"(?<![0-9.])3\.?((?:[89]|[1-9][0-9])(?:\.[0-9]{1,3})?)(?![0-9])", value)
    raise ValueError("must be a version of Python, such as '3.11'" + (f": write '3.{named[1]}'" if named else ""))


def _interpreter(value: str) -> str:
    if not value.startswith("/") or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("must be the absolute path of a Python on the box, such as /venv/main/bin/python")
    return value


def _slurm_word(value: str) -> str:
    if not value or not value.isprintable() or any(char.isspace() for char in value) or len(value) > 200:
        raise ValueError("must be one word, as Slurm's own option has it")
    return value


def _slurm_memory(value: str) -> str:
    if not SLURM_MEMORY.fullmatch(value):
        raise ValueError("must be a size as Slurm writes it, such as 64G")
    return value


def _requirements(value: object) -> object:
    return (f"-r {value}",) if isinstance(value, str) else _words(value)


def _words(value: object) -> object:
    """A list as the tuple that strict pydantic wants from a validator."""
    return tuple(value) if isinstance(value, list) else value


def is_repository(text: str) -> bool:
    """Whether the hub could have a model of this name (``org/name`` or ``name``; huggingface_hub's ``validate_repo_id``)."""
    return (
        bool(REPOSITORY.fullmatch(text))
        and ".." not in text
        and "--" not in text
        and not text.endswith((".git", "-", "."))
    )


SIZE_SCHEMA = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[KMGT]?i?B\s*$", "examples": ["20GiB"]}
DURATION_SCHEMA = {"type": "string", "pattern": r"^(\d+(\.\d+)?[dhms]\s*)+$", "examples": ["12h", "1h30m"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_GPUS = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 64}, {"const": "all"}]}
Name = Annotated[str, Rule(_name, {"type": "string", "pattern": f"^{NAME.pattern}$"})]
_SCRIPT = {"type": "string", "pattern": r"\S[^\n]*\n\s*\S", "examples": ["cd src\npython train.py\n"]}
Command = Annotated[tuple[str, ...], Rule(_command, {"anyOf": [{**_TEXTS, "minItems": 1}, _SCRIPT]}, before=True)]
Gpus = Annotated[int | Literal["all"], Rule(_gpus, _GPUS, before=True)]
Size = Annotated[int, Rule(_size, SIZE_SCHEMA, before=True)]  # bytes
Duration = Annotated[float, Rule(_duration, DURATION_SCHEMA, before=True)]  # seconds
Requirements = Annotated[tuple[str, ...], Rule(_requirements, {"anyOf": [{"type": "string"}, _TEXTS]}, before=True)]
Variable = Annotated[str, Rule(_variable)]
VariableValue = Annotated[str, Rule(_variable_value)]
Output = Annotated[str, Rule(_output)]
Pattern = Annotated[str, Rule(_pattern)]
CompleteWhen = Annotated[str, Rule(_complete_when, {"type": "string", "examples": ["DONE", "30s"]}, before=True)]
DataName = Annotated[str, Rule(_data_name)]
Repository = Annotated[str, Rule(_repository)]
Python = Annotated[str, Rule(_python)]
SlurmWord = Annotated[str, Rule(_slurm_word)]
SlurmMemory = Annotated[
    str, Rule(_slurm_memory, {"type": "string", "pattern": f"^{SLURM_MEMORY.pattern}$", "examples": ["64G"]})
]
Interpreter = Annotated[str, Rule(_interpreter)]
