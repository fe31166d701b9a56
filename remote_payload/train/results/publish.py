"""Publishing the finished model to the Hub. The model is on the box in any case, so a failure is a flag and does not end the run."""

from __future__ import annotations

from huggingface_hub import HfApi

from remote_payload.settings.pretrain import PretrainSettings
from remote_payload.train.run import Run


def publish(run: Run[PretrainSettings], api: HfApi | None = None) -> None:
    """Uploads ``models/best`` to ``settings.publish.repository``, if that is given (main rank)."""
    settings = run.settings.publish
    if not settings.repository or not run.world.main:
        return
    with run.phase("publish"):
        try:
            url = _upload(api or HfApi(), run, settings.repository, settings.private)
        except Exception as error:  # hours of training are not lost because of any error of the Hub or the network
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            run.telemetry.flag(
                "publish_failed",
                f"{settings.repository}: {first}. The model is in models/best: gpurun fetch, then "
                f"`hf upload {settings.repository} models/best`",
            )
            return
    run.log(f"published: {url}")


def _upload(api: HfApi, run: Run[PretrainSettings], repository: str, private: bool) -> str:
    url = api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(
        repo_id=repository,
        folder_path=str(run.best),
        commit_message=f"{run.job.get('name') or run.recipe}, trained with gpurun",
        ignore_patterns=["manifest.json"],
    )
    return str(url)
