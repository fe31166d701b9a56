"""Where the base model of a fetched model is on this machine, downloaded if need be."""

from __future__ import annotations

from pathlib import Path

from runner.domain.errors import UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.hub import fetch_model
from runner.local_model.base import required_base, trained_from
from runner.local_model.model_folder import ModelFolder


def bring_base(model: ModelFolder, run: Run | None, report: Reporter, *, ask_base: bool = False) -> Path | None:
    """The folder of an adapter's base model, or with ``ask_base`` of any model's; None where none is needed.

    It is the job's own folder, or the hub's model, downloaded with the user's token: never one that only the box names. Raises
    SmokeTestFailed, HubAccessDenied, HubUnreachable, and UserError with ``ask_base`` where nothing says what the model began with.
    """
    base = required_base(model, run.job if run else None)
    if base is None and ask_base and run is None:
        raise UserError(
            f"{model.folder} is a whole model, and nothing here says which model its training began with",
            hint="Ask that model by itself, as another TARGET.",
        )
    if base is None and ask_base and run:
        base = trained_from(model, run.job)
        if base is None:
            raise UserError(f"{run.run_id} names no model that its training began with, so there is no base to ask")
    if base is None or base.folder is not None:
        return base.folder if base else None
    with report.stage(f"base model {base.id}", "bytes") as stage:
        return fetch_model(base.id, base.revision, stage)
