"""Publishing the finished model at the end of a run. It is on the box in any case, so a failure is a flag and does not end the run."""

from __future__ import annotations

import os

from huggingface_hub import HfApi, get_token

from remote_payload.publish.problem import PublishProblem
from remote_payload.publish.publication import Wish, run_publication
from remote_payload.settings.training import WRITE_TOKEN, Publish
from remote_payload.train.results.card import title_of
from remote_payload.train.run import Run


def publish(run: Run, api: HfApi | None = None) -> None:
    """Uploads ``models/best`` to ``settings.publish.repository``, if that is given (main rank)."""
    settings: Publish | None = getattr(run.settings, "publish", None)
    if settings is None or not settings.repository or not run.world.main:
        return
    with run.phase("publish"):
        try:
            url = _publish(run, api or HfApi(), settings, settings.repository)
        except Exception as error:  # hours of training are not lost because of any error of the Hub or the network
            problem = error if isinstance(error, PublishProblem) else None
            said = (problem.message if problem else str(error).strip() or type(error).__name__).splitlines()
            run.telemetry.flag(
                "publish_failed",
                f"{settings.repository}: {said[0]} {', '.join(map(str.strip, said[1:6]))}. The model is in models/best: "
                f"gpurun publish {run.id} {settings.repository} --on-box",
            )
            return
    run.log(f"published: {url}")


def _publish(run: Run, api: HfApi, settings: Publish, repository: str) -> str:
    if not run.best.is_dir():
        raise PublishProblem("there is no model: nothing was evaluated")
    login = get_token()
    token = os.environ.get(WRITE_TOKEN) or login
    if token is None:
        raise PublishProblem(f"the run has no token that may write; give it one with `secrets: [{WRITE_TOKEN}]`")
    wish = Wish(run.best, repository, title_of(run), public=not settings.private)
    secrets = [os.environ.get(str(name), "") for name in run.job.get("secrets") or []]
    report = run_publication(api, wish, token=token, read_token=login, secrets=secrets, update=settings.update)
    for remark in report.remarks:
        run.log(f"published model: {remark}")
    return f"{api.endpoint}/{repository}"
