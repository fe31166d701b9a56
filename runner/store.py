"""Local run records: one folder a run, its record replaced as a whole and edited under a lock."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from runner import files
from runner.domain import places
from runner.domain.answers.reading import Impossible
from runner.domain.errors import NotStarted, StartedElsewhere, StateError, UnknownRun
from runner.domain.run import Run, RunChanges, matching, stamp_of
from runner.files import file_lock, parse_json, write_json, writing

if TYPE_CHECKING:
    from typing_extensions import Unpack


def create(run: Run) -> None:
    """Puts a new run on disk, its folder under the final name once the record is in it. Raises FileExistsError when its id is taken."""
    folder = places.run_folder(run.run_id)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    with writing(folder):
        try:
            beside.mkdir(parents=True, mode=0o700)
            (beside / ".born").touch()
            write_json(beside / "run.json", run.as_json())
            os.rename(beside, folder)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, OSError) and error.errno == errno.ENOTEMPTY:
                raise FileExistsError(error.errno, error.strerror, str(folder)) from None
            raise


def discard(run_id: str) -> None:
    """Removes a run's record, log and all."""
    shutil.rmtree(places.run_folder(run_id), ignore_errors=True)


def discard_untried(run_id: str) -> None:
    """Removes the record of a run unless a gpurun has asked for its launch, this one or another."""
    _discard_where(run_id, lambda record: not record.attempted and not record.launched)


def discard_never_started(run_id: str) -> bool:
    """Removes the record of a run that no box can have, and whether it did: another gpurun may have started it meanwhile."""
    return _discard_where(run_id, lambda record: not record.may_be_there)


def _discard_where(run_id: str, holds: Callable[[Run], bool]) -> bool:
    if not _is_run(run_id):
        return False
    with file_lock(places.run_folder(run_id) / "run.json"):
        try:
            record = load(run_id)
        except (UnknownRun, StateError):
            return False
        if holds(record):
            discard(run_id)  # a gpurun that waits for the lock writes the record again
            return True
    return False


def save(run: Run) -> None:
    """Replaces a run's record."""
    write_json(places.run_folder(run.run_id) / "run.json", run.as_json())


def update(run: Run, **changes: Unpack[RunChanges]) -> None:
    """Changes these fields of ``run`` and of its record. Other fields of the record stay as another gpurun wrote them meanwhile."""
    for name, value in changes.items():
        setattr(run, name, value)

    def work() -> None:
        record = _recorded(run)
        for name, value in changes.items():
            setattr(record, name, value)
        save(record)

    files.change(places.run_folder(run.run_id) / "run.json", work)


def note_attempt(run: Run, data: dict[str, str]) -> None:
    """Notes that a launch is about to be asked for: from here on the run may be on ``run.host``, and on no other.

    Raises StartedElsewhere where another gpurun has sent the run to another host meanwhile, NotStarted where it has given back the place
    that the run was to take: a third one may have taken it.
    """

    def work() -> None:
        if run.parent and not _is_run(run.run_id):
            raise NotStarted(
                f"another gpurun was ended meanwhile, and has given up {run.run_id}",
                meaning="It was not started.",
                hint="Repeat the command.",
            )
        record = _recorded(run)
        if record.host != run.host:
            raise StartedElsewhere(
                f"{run.run_id} is being started on {record.host} by another gpurun",
                meaning="It was not started here.",
                hint=f"gpurun status {run.run_id}",
            )
        record.attempted, record.data = True, data
        save(record)

    files.change(places.run_folder(run.run_id) / "run.json", work)
    run.attempted, run.data = True, data


def send_to(run: Run, host: str) -> bool:
    """Writes another host into the record of a run whose launch nobody has asked for; False where somebody has, at another host."""
    taken = False

    def work() -> None:
        nonlocal taken
        record = _recorded(run)
        taken = record.may_be_there and record.host != host
        if not taken:
            record.host = host
            save(record)

    files.change(places.run_folder(run.run_id) / "run.json", work)
    if not taken:
        run.host = host
    return not taken


def take_place(run: Run, new: Run) -> Run:
    """The one run that takes the place of ``run``: ``new``, whose record is made, or the one that another gpurun has made a record of."""
    found = new

    def work() -> None:
        nonlocal found
        record = _recorded(run)
        try:
            found = load(record.went_on_as) if record.went_on_as else new
        except (UnknownRun, StateError):  # its command was killed before the record was made, or it was taken back
            found = new
        if found is new:
            record.went_on_as = new.run_id
            save(record)
            if not _is_run(new.run_id):
                create(new)

    files.change(places.run_folder(run.run_id) / "run.json", work)
    run.went_on_as = found.run_id
    return found


def give_place_back(run: Run, new: Run, *, refused: bool = False) -> None:
    """Removes the record of a run that was to take the place of ``run``, if no box was asked to start it or the box has ``refused``."""

    def work() -> None:
        if refused:
            discard(new.run_id)
        else:
            discard_untried(new.run_id)
        record = _recorded(run)
        if record.went_on_as == new.run_id and not _is_run(new.run_id):
            record.went_on_as = run.went_on_as = None
            save(record)

    files.change(places.run_folder(run.run_id) / "run.json", work)


def _recorded(run: Run) -> Run:
    """The run as its record has it now; as it is here where the record is gone or damaged."""
    try:
        return load(run.run_id)
    except (UnknownRun, StateError):
        return run


def load(run_id: str) -> Run:
    """One run. Raises UnknownRun, or StateError naming the file that cannot be read."""
    file = places.run_folder(run_id) / "run.json"
    if not _is_run(run_id):
        raise _unknown(run_id)
    try:
        run = Run.from_json(parse_json(file))
        if run.run_id != run_id:
            raise Impossible(f"it is the record of {run.run_id}", "run_id")
        return run
    except Impossible as error:
        raise StateError(
            f"the record of run {run_id} is damaged: {file} ({error})",
            meaning="No other run is taken for it, and the run on the box is not touched by that.",
            hint=f"Name another run (gpurun list), or move {file.parent} away; gpurun list --host HOST shows what is on a box.",
        ) from None


def find(name: str | None) -> Run:
    """The run of that id, unique beginning or unique ending, the newest of that job; for None the newest of all."""
    ids = run_ids()
    if name is None:
        if not ids:
            raise UnknownRun("there is no run yet", hint="Start one: gpurun submit JOB --host HOST")
        return load(ids[-1])
    fitting = matching(name, ids)
    if len(fitting) > 1:
        shown = ", ".join(fitting[-4:])
        raise UnknownRun(f"{name!r} fits {len(fitting)} runs: {shown}", hint="Give more of the id (gpurun list).")
    if not fitting:
        raise _unknown(name)
    return load(fitting[0])


def find_started(name: str | None) -> Run:
    """The same, for commands that need a run that was started.

    Raises NotStarted for one, rather than take an older run that nobody named.
    """
    run = find(name)
    if run.may_be_there:
        return run
    started = [other for other in load_all()[0] if other.may_be_there]
    other = f"\nOr name the run that you mean: {started[-1].run_id}" if name is None and started else ""
    raise NotStarted(
        f"{run.run_id} was never started: {run.why_not_started or 'its submission was cut off'}",
        meaning="Nothing was done: no other run is taken for it.",
        hint=f"Start it: {run.how_to_start}{other}",
    )


def run_ids() -> list[str]:
    """The ids of all runs, oldest first."""
    try:
        names = os.listdir(places.runs())
    except FileNotFoundError:
        return []
    found = [name for name in names if stamp_of(name) and _is_run(name)]
    return sorted(found, key=lambda name: (stamp_of(name), _born(name)))


def _is_run(name: str) -> bool:
    """Whether a folder under ``runs`` holds a run: a record, or, where that was lost, a log. Others never got one (a full disk)."""
    folder = places.runs() / name
    if os.path.lexists(folder / "run.json"):
        return True
    try:
        return any(not entry.startswith(".") for entry in os.listdir(folder))
    except OSError:
        return False


def _born(name: str) -> int:
    """Tells runs of one second apart: a folder's record is first written when the run is minted."""
    try:
        return os.stat(places.runs() / name / ".born").st_mtime_ns
    except OSError:
        return 0


def load_all(limit: int | None = None) -> tuple[list[Run], list[StateError]]:
    """The latest ``limit`` runs (all for None), oldest first, and an error for each that cannot be read."""
    runs, damaged = [], []
    ids = run_ids()
    for run_id in ids if limit is None else ids[-limit:]:
        try:
            runs.append(load(run_id))
        except StateError as error:
            damaged.append(error)
        except UnknownRun:
            continue
    return runs, damaged


def _unknown(name: str) -> UnknownRun:
    return UnknownRun(
        f"this machine knows no run {name!r}",
        hint="gpurun list shows the runs of this machine; gpurun list --host HOST those on a box, whoever started them.",
    )
