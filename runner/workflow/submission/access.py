"""The Hugging Face login: checked on the laptop before anything is pushed, for every model that the job names."""

from __future__ import annotations

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
