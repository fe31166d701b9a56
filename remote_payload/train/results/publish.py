"""Publishing the finished model to the Hub. The model is home or on the box whatever happens here, so trouble is a flag, not an end."""

from __future__ import annotations

from typing import Any

from remote_payload.train.run import Run


def publish(run: Run, api: Any = None) -> None:
    """Uploads ``models/best`` to ``settings.publish.repository``, where that is given (main rank). ``api`` is an HfApi."""
    settings = run.settings.publish
    if not settings.repository or not run.world.main:
        return
    with run.phase("publish"):
        try:
            url = _upload(api or _api(), run, settings)
        except Exception as error:  # whatever the Hub or the network thought of: hours of training are not lost over it
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            run.telemetry.flag(
                "publish_failed",
                f"{settings.repository}: {first}. The model is in models/best: gpurun fetch, then "
                f"`hf upload {settings.repository} models/best`",
            )
            return
    run.log(f"published: {url}")


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _upload(api: Any, run: Run, settings: Any) -> str:
    url = api.create_repo(settings.repository, private=settings.private, exist_ok=True)
    api.upload_folder(
        repo_id=settings.repository,
        folder_path=str(run.best),
        commit_message=f"{run.job.get('name') or run.recipe}, trained with gpurun",
        ignore_patterns=["manifest.json"],
    )
    return str(url)
