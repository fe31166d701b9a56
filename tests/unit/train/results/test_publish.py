"""Publishing: only where asked for, and never a reason to lose a model. The Hub itself cannot exist here."""

from types import SimpleNamespace

import pytest

from remote_payload.settings.pretrain import Publish
from remote_payload.train.results.publish import publish

pytestmark = pytest.mark.stand_in


class Hub:
    """HfApi as far as publishing uses it."""

    def __init__(self, refusal=None):
        self.refusal, self.calls = refusal, []

    def create_repo(self, repository, **options):
        if self.refusal:
            raise self.refusal
        self.calls.append(("create", repository, options["private"]))
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, **options):
        self.calls.append(("upload", options["repo_id"], options["folder_path"]))


@pytest.fixture
def run(tmp_path):
    import torch

    from remote_payload.train.distributed import World
    from remote_payload.train.run import Run
    from remote_payload.train.telemetry import Telemetry

    telemetry = Telemetry("london", tmp_path / "events.jsonl", tmp_path / "logs", True)
    settings = SimpleNamespace(publish=Publish())
    world = World(0, 1, 0, torch.device("cpu"))
    return Run("london", "pretrain", {"name": "london"}, settings, tmp_path / "outputs", None, world, telemetry)


def test_nothing_is_published_unasked(run):
    hub = Hub()
    publish(run, hub)
    assert hub.calls == []


def test_the_finished_model_goes_to_its_repository(run, capsys):
    run.settings.publish = Publish("me/london", private=False)
    hub = Hub()
    publish(run, hub)
    assert hub.calls == [("create", "me/london", False), ("upload", "me/london", str(run.best))]
    assert "published: https://huggingface.co/me/london" in capsys.readouterr().out


def test_a_hub_that_refuses_raises_a_flag_that_says_what_to_type(run, capsys):
    run.settings.publish = Publish("me/london")
    publish(run, Hub(PermissionError("403 Forbidden: the token cannot write\nmore")))
    out = capsys.readouterr().out
    assert "FLAG publish_failed: me/london: 403 Forbidden: the token cannot write." in out
    assert "hf upload me/london models/best" in out


def test_a_rank_that_is_not_the_main_one_leaves_it(run):
    run.settings.publish = Publish("me/london")
    run.world.rank = 1
    hub = Hub()
    publish(run, hub)
    assert hub.calls == []
