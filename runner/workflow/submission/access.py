"""The Hugging Face login: checked on the laptop before anything is pushed, for every model that the job names."""

from __future__ import annotations

import threading

from runner.domain.job import Job
from runner.domain.progress import Reporter


def require(job: Job, report: Reporter) -> str | None:
    """The token for the run; None when the job names no model. Raises HubAccessDenied where the token may not read one of them."""
    if not job.hub.models:
        return None
    from runner import hub

    own = job.settings.get("model")  # of pretrain it is a shape, which no model of the hub equals
    models = [(model, job.settings.get("revision") if model == own else None) for model in job.hub.models]
    with report.stage("Hugging Face access") as stage:
        identity, _ = hub.require_access(models, report, allow_write_token=job.hub.allow_write_token)
        stage.update(
            note=f"{len(models)} model{'s' * (len(models) > 1)}, as {identity.name if identity else 'anonymous'}"
        )
    return identity.token if identity else None


class Tokens:
    """The hub's token for each job, asked for once for all jobs that name the same models. Thread-safe."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._tokens: dict[str, str | None] = {}
        self._asking = threading.Lock()

    def of(self, job: Job) -> str | None:
        """As ``require``."""
        key = repr((job.hub, job.settings.get("model"), job.settings.get("revision")))
        with self._asking:
            if key not in self._tokens:
                self._tokens[key] = require(job, self._report)
            return self._tokens[key]
