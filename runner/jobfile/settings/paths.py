"""Settings that name something outside the job file, and how it gets to the box.

A recipe marks them where it declares them (``kind="model"``, ``kind="data"``): a model is a folder here or one of the hub's, data is a
path here. What is here must be part of ``data:``, since that is all that a recipe job sends.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from remote_payload.settings import settings_class
from runner.domain.job import DataFrom, Job, RunOutput, Settings, run_output
from runner.domain.job_fields import is_repository
from runner.jobfile.folder_checks import FolderChecks
from runner.jobfile.problems import Place, quoted
from runner.jobfile.tree import Node
from runner.jobfile.typing_errors import dotted, walk


def resolve_settings_paths(job: Job, tree: Node, checks: FolderChecks) -> Job:
    """The job with its recipe's models among ``hub.models`` where they are the hub's. Problems are added to ``checks``."""
    models = list(job.hub.models)
    job = with_run_outputs(job, tree, checks)
    for keys, kind, value in (
        _marked(settings_class(job.recipe, str(checks.folder)), job.settings) if job.recipe else ()
    ):
        node = walk(tree, ("settings", *keys))
        place = node.place if node else tree.key_place("recipe")
        name = dotted(("settings", *keys))
        if kind in ("data", "adapter") or _is_local(value, checks):
            _must_be_sent(value, place, name, job, checks)
        elif is_repository(value):
            models.append(value)
        else:
            checks.problem(place, f"{name}: {quoted(value)} is neither a folder here nor a model of the hub (org/name)")
    return replace(job, hub=replace(job.hub, models=tuple(dict.fromkeys(models))))


Keys = tuple[str | int, ...]
WHOLE_RUN = "models/best"  # what ``adapter: run:ID`` means
FROM_RUNS = "from-runs"  # where what a setting names of a run appears in the working directory


def with_run_outputs(job: Job, tree: Node, checks: FolderChecks) -> Job:
    """The job with every setting ``run:ID/path`` among its data, and in its place the path at which the program finds it.

    ``run:ID`` alone, as an adapter, is the run's model.
    """
    settings, data = copy.deepcopy(job.settings), list(job.data)
    for keys, kind, value in _marked(settings_class(job.recipe, str(checks.folder)), settings) if job.recipe else ():
        output = run_output(value)
        if output is None:
            continue
        if kind == "adapter" and not output.path:
            output = RunOutput(output.run_id, WHOLE_RUN)
        node = walk(tree, ("settings", *keys))
        if node is None or not checks.names_run_output(output, node, dotted(("settings", *keys))):
            continue
        known = {each: place for place, each in job.run_outputs.items()}
        place = known.get(output, f"{FROM_RUNS}/{output.run_id}/{output.path}")
        if output not in known and place not in job.run_outputs:
            data.append(DataFrom(str(output), place))
            job = replace(job, data=tuple(data))
        _put(settings, keys, place)
    return replace(job, settings=settings)


def _put(settings: Any, keys: Keys, value: str) -> None:
    *above, last = keys
    for key in above:
        settings = settings[key]
    settings[last] = value


def _marked(kind: Any, values: Settings, above: Keys = ()) -> Iterator[tuple[Keys, str, str]]:
    """``(keys, "model" or "data", value)`` of every setting that names a model or data, groups included; a list gives each of its items."""
    for field in dataclasses.fields(kind):
        value = values.get(field.name)
        keys: Keys = (*above, field.name)
        if isinstance(value, dict) and dataclasses.is_dataclass(field.default_factory):
            yield from _marked(field.default_factory, value, keys)
        elif "kind" in field.metadata:
            items = (
                [((*keys, index), item) for index, item in enumerate(value)]
                if isinstance(value, list)
                else [(keys, value)]
            )
            yield from ((place, field.metadata["kind"], item) for place, item in items if isinstance(item, str))


def _is_local(model: str, checks: FolderChecks) -> bool:
    """A path that no hub name looks like, or a folder that is there."""
    if model.startswith((".", "/", "~")):
        return True
    try:
        return (checks.folder / model).is_dir()
    except (OSError, ValueError):
        return False


def _must_be_sent(written: str, place: Place, name: str, job: Job, checks: FolderChecks) -> None:
    """Reports a path that does not exist or is not part of ``data:``. A missing entry of ``data:`` was reported at its own line."""
    path = PurePosixPath(written)
    taken = map(PurePosixPath, job.run_outputs)  # what is in there only its box knows
    if any(path == each or each in path.parents for each in taken):
        return
    for appears, source in job.at(checks.folder).data_places.items():
        if path == PurePosixPath(appears) or PurePosixPath(appears) in path.parents:
            found = source if path == PurePosixPath(appears) else source / path.relative_to(appears)
            if source.exists() and not found.exists():
                checks.problem(place, f"{name}: there is no {quoted(written)} in the data ({quoted(str(source), 300)})")
            return
    if checks.inside(written, place, name) is not None:
        checks.problem(place, f"{name}: {quoted(written)} is not sent: add it to data:")
