"""``gpurun publish``: a model's folder on this machine becomes a repository of the Hub, or its next revision."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner import store
from runner.domain.errors import ArtifactError, HostError, HubAccessDenied, UserError
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size
from runner.domain.run import Run
from runner.hub import HubUnreachable, find_token, write_identity
from runner.hub.client import api, endpoint
from runner.hub.explain import hub_answer, trouble
from runner.local_model.model_folder import find_models
from runner.workflow.checkpoints import fetched
from runner.workflow.inference.smoke import target_of

if TYPE_CHECKING:
    from remote_payload.publish.problem import PublishProblem
    from remote_payload.publish.publication import Publication, Wish

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Published:
    """What was published, or what would be. ``commit`` is None where nothing was uploaded."""

    run: Run | None
    publication: Publication
    page: str
    commit: str | None


def model_of(target: str) -> tuple[Path, Run | None]:
    """The one model's folder that TARGET means, and its run: a fetched run, ``RUN:CHECKPOINT`` of it, or a folder.

    Raises UserError, UnknownRun, and ArtifactError where it is not on this machine.
    """
    name, colon, checkpoint = target.rpartition(":")
    if colon and name and not os.path.exists(target):
        run = store.find_started(name)
        there = fetched(run)
        if checkpoint not in there:
            raise ArtifactError(
                f"{run.run_id} has no checkpoint {checkpoint} on this machine; here are: {', '.join(there) or 'none'}",
                hint=f"Type gpurun fetch {run.run_id} first.",
            )
        return there[checkpoint], run
    folder, found = target_of(target)
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder {folder}", hint="Bring a run home first: gpurun fetch.")
    models = find_models(folder)
    if len(models) > 1:
        raise UserError(
            f"there are {len(models)} models below {folder}: {', '.join(str(each.relative_to(folder)) for each in models[:5])}",
            hint=f"Name the folder of one: {models[0]}",
        )
    return models[0], found


def publish_here(
    run: Run | None, wish: Wish, report: Reporter, typed: Callable[[], str | None], *, update: bool, dry_run: bool
) -> Published:
    """Publishes from this machine, or with ``dry_run`` only says what would go, for which a token that reads is enough.

    Raises UserError, ArtifactError, HubAccessDenied and HubUnreachable.
    """
    from remote_payload.publish.problem import PublishProblem
    from remote_payload.publish.publication import prepare, publish, refuse_conflicts

    if not REPOSITORY.fullmatch(wish.repository):
        raise UserError(
            f"{wish.repository!r} is no repository's name", hint="Write it as owner/name, such as me/legal-lora."
        )
    read_token = find_token()
    writer = None if dry_run else write_identity(typed)
    token = writer.token if writer else read_token
    secrets = [os.environ.get(name, "") for name in run.job.secrets] if run else []
    client = api()
    page = f"{endpoint()}/{wish.repository}"
    try:
        with report.stage(f"read {wish.folder.name} and {wish.repository}"):
            found = prepare(client, wish, token=token, read_token=read_token, secrets=secrets)
        for remark in found.remarks:
            report.warn(remark)
        if dry_run or writer is None or found.nothing_to_do:
            return Published(run, found, page, None)
        if not update:
            refuse_conflicts(found)
        message = f"{wish.title}, published with gpurun"
        with report.stage(f"upload {_amount(found)} to {wish.repository}"):
            commit = publish(client, found, token=writer.token, message=message, update=update)
    except PublishProblem as problem:
        raise as_user_error(problem) from None
    except (HostError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise _of_the_hub(error, wish.repository, token) from None
    return Published(run, found, page, commit)


def as_user_error(problem: PublishProblem) -> UserError:
    """The same for the command line."""
    return UserError(problem.message, meaning=problem.meaning, hint=problem.hint)


def _amount(found: Publication) -> str:
    going = [file for file in found.contents.files if found.comparison.state(file.path) != "same"]
    return f"{len(going)} files ({format_size(sum(file.size for file in going))})"


def _of_the_hub(error: Exception, repository: str, token: str | None) -> HostError:
    """A refusal of the hub, or a hub that was not reached. Raises ``error`` itself when neither is its cause."""
    answer = hub_answer(error)
    if answer is not None and answer.status_code in (401, 403):
        return HubAccessDenied(
            f"the token may not write to {repository}",
            meaning="Nothing was published.",
            hint="Give it permission for this repository, or for the owner's repositories, where it was made.",
        )
    if answer is not None and answer.status_code == 412:
        return HubUnreachable(
            f"{repository} was changed by somebody else at this moment",
            meaning="Nothing was overwritten.",
            hint="Repeat the command: it compares anew.",
            retryable=True,
        )
    if answer is not None and answer.status_code == 400:
        said = str(answer.headers.get("X-Error-Message") or error).splitlines()[0][:300]
        return HubAccessDenied(f"the hub refuses it: {said}", meaning="Nothing was published.")
    return HubUnreachable(
        trouble(error, token),
        meaning="What was uploaded so far is kept there.",
        hint="Repeat the command: it goes on.",
        retryable=True,
    )
