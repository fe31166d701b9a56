"""The Hugging Face login: checked on the laptop before anything is pushed, for every model that the job names."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from remote_payload.settings.training import WRITE_TOKEN
from runner.domain.job import Job
from runner.domain.progress import Reporter

PLACES = {
    "folder": "revision",
    "base": "base_revision",
}  # of a model that is not trained: its name, and where its revision stands


def require(job: Job, report: Reporter) -> str | None:
    """The token for the run; None when the job names no model. Raises HubAccessDenied where the token may not read one of them, or
    where the run is to publish and would have no token that may write."""
    _require_publishing(job, report)
    if not job.hub.models:
        return None
    from runner import hub

    wanted = set(_revisions(job))
    named = {model for model, _ in wanted}
    models = [each for each in sorted(wanted, key=str) if each[0] in job.hub.models]
    models += [(model, None) for model in job.hub.models if model not in named]
    with report.stage("Hugging Face access") as stage:
        identity, _ = hub.require_access(models, report, allow_write_token=job.hub.allow_write_token)
        stage.update(
            note=f"{len(models)} model{'s' * (len(models) > 1)}, as {identity.name if identity else 'anonymous'}"
        )
    return identity.token if identity else None


def _revisions(job: Job) -> Iterator[tuple[str, str | None]]:
    """Each model that the settings name, with the revision that they ask for: what a recipe trains, or what is measured or predicts."""
    own = job.settings.get("model")  # of pretrain it is a shape
    if isinstance(own, str):
        yield own, job.settings.get("revision")
    several = job.settings.get("models")
    for each in (own, *(several if isinstance(several, list) else ())):
        if isinstance(each, dict):
            yield from ((str(each[name]), each.get(at)) for name, at in PLACES.items() if each.get(name))


def _require_publishing(job: Job, report: Reporter) -> None:
    """Hours of training later is too late to learn that nobody may write."""
    repository = job.setting("publish", "repository")
    if not repository or job.has_own_recipe:
        return
    from runner import hub
    from runner.domain.errors import HubAccessDenied

    with report.stage("publishing") as stage:
        if WRITE_TOKEN in job.secrets:
            try:
                name = hub.write_identity(lambda: None).name
            except hub.HubUnreachable as error:
                report.warn(f"{error.message}: whether the run may publish was not checked.")
                return
            return stage.update(note=f"to {repository}, as {name}")
        if job.hub.allow_write_token and job.hub.models:
            return stage.update(note=f"to {repository}, with the token that the run is lent")
    raise HubAccessDenied(
        f"settings.publish: the run is to publish to {repository}, and would have no token that may write",
        meaning="Nothing was pushed.",
        hint=f"Say `secrets: [{WRITE_TOKEN}]` in the job file, or publish later: gpurun publish RUN {repository} --on-box",
    )


class Tokens:
    """The hub's token for each job, asked for once for all jobs that name the same models. Thread-safe."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._tokens: dict[str, str | None] = {}
        self._asking = threading.Lock()

    def of(self, job: Job) -> str | None:
        """As ``require``."""
        publishes = (
            bool(job.setting("publish", "repository")) and not job.has_own_recipe
        )  # to whichever: the token is the same
        key = repr((job.hub, job.secrets, publishes, *map(job.settings.get, ("model", "models", "revision"))))
        with self._asking:
            if key not in self._tokens:
                self._tokens[key] = require(job, self._report)
            return self._tokens[key]
