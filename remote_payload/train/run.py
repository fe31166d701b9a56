"""The run as its recipe sees it: settings, folders, ranks, telemetry. Also how a recipe starts and how it ends.

Started by gpurun everything comes from the environment (ARCHITECTURE.md, "What the payload meets"). Started by hand,

    python -m remote_payload.recipes.classify job.yaml

reads that file and writes under ``gpurun-runs/<run id>/`` of the working directory.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import torch.distributed as dist

from remote_payload.settings import USES, is_own, settings_class
from remote_payload.settings.common import CommonSettings
from remote_payload.settings.metrics import is_higher_better, metrics_of
from remote_payload.settings.own import RecipeError
from remote_payload.settings.reading import SettingError, read_settings
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError, Stopped, TrainingError
from remote_payload.train.lent_gpus import require_lent_gpus
from remote_payload.train.telemetry import Telemetry

OWN = "own"  # the module under remote_payload.recipes that runs a recipe of the user's own

if TYPE_CHECKING:  # a plain ``Run`` is one whose recipe does not matter
    from typing_extensions import TypeVar as TypeVarWithDefault

    S = TypeVarWithDefault("S", bound=CommonSettings, covariant=True, default=CommonSettings)
else:
    S = TypeVar("S")


@dataclass
class Run(Generic[S]):
    """One attempt at a job. Paths in settings are relative to the working directory, which is the job's code."""

    id: str
    recipe: str
    job: dict[str, Any]
    settings: S
    outputs: Path
    resume: str | None  # auto, a checkpoint's name or its path
    world: World
    telemetry: Telemetry
    phases: list[dict[str, Any]] = field(default_factory=list)
    higher_is_better: bool = False  # of evaluation.metric

    @classmethod
    def from_environment(cls, recipe: str, arguments: list[str] | None = None) -> Run[Any]:
        """The run that gpurun launched, or one by hand from the job file named in ``arguments``.

        Raises InputError for a job that is missing, is of another recipe or has settings that the recipe does not know, TrainingError
        when the job asks for GPUs that torch cannot use.
        """
        folder, job = _job_by_gpurun() or _job_by_hand(recipe, arguments or [])
        if recipe == OWN and is_own(str(job.get("recipe"))):
            recipe = job["recipe"]
        if job.get("recipe", recipe) != recipe:
            raise InputError(f"the job is of recipe {job['recipe']}, not {recipe}")
        try:
            settings = read_settings(settings_class(recipe), job.get("settings") or {})
        except (SettingError, RecipeError) as error:
            raise InputError(str(error)) from None
        higher = _direction(recipe, settings) if recipe not in USES else False
        require_lent_gpus(job)
        world = World.from_environment()
        run_id = world.broadcast(os.environ.get("GPURUN_RUN_ID") or folder.name)
        outputs = Path(world.broadcast(str(os.environ.get("GPURUN_OUTPUTS") or folder / "outputs")))
        events = Path(os.environ.get("GPURUN_EVENTS") or outputs.parent / "events.jsonl")
        resume = os.environ.get("GPURUN_RESUME") or getattr(settings, "resume", None)
        telemetry = Telemetry(
            run_id, events, outputs / "logs" / run_id, world.main, job.get("settings"),
            wandb_record=outputs / "reports" / "wandb.json", resumed=bool(resume),
        )  # fmt: skip
        return cls(run_id, recipe, job, settings, outputs, resume, world, telemetry, higher_is_better=higher)

    @property
    def checkpoints(self) -> Path:
        return self.outputs / "checkpoints"

    @property
    def best(self) -> Path:
        """The model that the run is for."""
        return self.outputs / "models" / "best"

    @property
    def reports(self) -> Path:
        return self.outputs / "reports"

    def log(self, text: str) -> None:
        """A line of the log, from the main rank."""
        self.telemetry.log(text)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A named part of the run: an event when it begins, its duration in the record."""
        self.telemetry.event("phase", name=name)
        started = time.time()
        try:
            yield
        finally:
            seconds = round(time.time() - started, 3)
            self.phases.append({"name": name, "started_at": _utc(started), "seconds": seconds})


def _direction(recipe: str, settings: CommonSettings) -> bool:
    """Whether more of ``evaluation.metric`` is better. Raises InputError for a metric that the recipe does not report."""
    name, known = settings.evaluation.metric, metrics_of(recipe, vars(settings))
    higher = is_higher_better(known, name)
    if higher is None:
        raise InputError(f"settings.evaluation.metric: there is no {name}; there are {', '.join(known)}")
    return higher


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _job_by_gpurun() -> tuple[Path, dict[str, Any]] | None:
    folder = os.environ.get("GPURUN_RUN_DIR")
    return (Path(folder), _read_job(Path(folder) / "job.json")) if folder else None


def _job_by_hand(recipe: str, arguments: list[str]) -> tuple[Path, dict[str, Any]]:
    if len(arguments) != 1:
        raise InputError(
            f"started without gpurun, so name a job file: python -m remote_payload.recipes.{recipe} job.yaml"
        )
    job = _read_job(Path(arguments[0]))
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("gpurun-runs").resolve() / f"{job.get('name') or recipe}-{stamp}-{os.getpid() & 0xFFFF:04x}", job


def _read_job(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            import yaml

            job = yaml.safe_load(text)
        else:
            job = json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except Exception as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(job, dict):
        raise InputError(f"{path}: expected a mapping")
    return job


def launch(recipe: str, body: Callable[[Run[Any]], None]) -> NoReturn:
    """Runs a recipe and exits with its code."""
    _quieten_libraries()

    def work() -> None:
        run = Run.from_environment(recipe, sys.argv[1:])
        try:
            body(run)
        finally:
            run.telemetry.close()

    leave(exit_code(work))


def leave(code: int) -> NoReturn:
    """Ends this process. A rank of several does not tear its interpreter down: threads of gloo or NCCL that still let go of tensors
    then abort it (pytorch/pytorch#179291), and a run whose work is done would have failed by signal 6."""
    if "RANK" not in os.environ:
        sys.exit(code)
    atexit._run_exitfuncs()  # what libraries want to do at the end, as multiprocessing lets them in its children
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code(work: Callable[[], None]) -> int:
    """Does the work: 0 done, 2 bad input, 1 training failed, 128 + n stopped by signal n.

    An expected error is one line on stderr. A traceback means a bug; of several ranks only the first to fail prints one, since
    the others then fail because of the lost connection.
    """
    code = 0
    try:
        work()
    except Stopped as stop:
        code = stop.exit_code
        _print_error(str(stop))
    except (InputError, TrainingError) as error:
        _print_error(f"error: {error}")
        return 2 if isinstance(error, InputError) else 1
    except Exception:
        if _first_to_fail():
            traceback.print_exc()
        return 1
    if dist.is_initialized():
        dist.destroy_process_group()
    return code


def _quieten_libraries() -> None:
    """Turns off progress bars, which fill a log file with carriage returns, and warnings of one library about another.

    TOKENIZERS_PARALLELISM stays as the job has it. Where it is not set, tokenizers use all cores, and only one in a process
    that was forked later, which has no such threads. With ``true`` that process would wait for them for ever.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(peft|transformers|torch)\b")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _print_error(text: str) -> None:
    if _first_to_fail():
        print(text, file=sys.stderr, flush=True)


def _first_to_fail() -> bool:
    """Whether no other rank has failed yet. If one has, its error is the cause, and another traceback would only hide it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return True
    rank = str(dist.get_rank())
    try:
        first = dist.distributed_c10d._get_default_store().compare_set("gpurun/failed", "", rank).decode()
    except Exception:  # the store went down with the rank that held it
        first = "another"
    return bool(first == rank)
