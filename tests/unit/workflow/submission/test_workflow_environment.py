"""The interpreter that a run gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runner.domain.answers.box import Have
from runner.domain.answers.verbs import Provisioned
from runner.domain.errors import EnvironmentFailed
from runner.domain.job import Environment, Job
from runner.domain.progress import Silent
from runner.workflow.submission.environment import provision
from runner.workflow.submission.plan import Requirements, requirements_of


def given(*missing: str, torch: str | None = None) -> str:
    found = Provisioned("/opt/python", "given", 0.1, None, missing, torch)
    agent = SimpleNamespace(provision=lambda **wanted: found)
    link: Any = SimpleNamespace(agent=agent, host=SimpleNamespace(interpreters=()))
    plan: Any = SimpleNamespace(requirements=Requirements(None, "/opt/python", "", ("torch>=2.6",)), job=Job(name="a"))
    box: Any = SimpleNamespace(have=Have())
    return provision(link, plan, box, Silent())


@pytest.mark.stand_in
def test_a_given_interpreter_that_lacks_packages_ends_the_submission_before_the_launch() -> None:
    assert given() == "/opt/python"
    with pytest.raises(EnvironmentFailed, match=r"/opt/python lacks torch>=2.6, peft>=0.15") as error:
        given("torch>=2.6", "peft>=0.15")
    assert error.value.hint.startswith(
        "On the box: /opt/python -m pip install 'torch>=2.6' 'peft>=0.15'. Or leave out environ"
    )
    with pytest.raises(
        EnvironmentFailed, match=r"the torch of /opt/python cannot use the GPU: Found no NVIDIA"
    ) as error:
        given(torch="Found no NVIDIA driver")
    assert error.value.hint.startswith("Leave out environment.interpreter") and "gpus: 0" in error.value.hint


@pytest.mark.parametrize(
    ("secrets", "requirements", "brought"),
    [
        ((), (), []),
        (("WANDB_API_KEY",), (), ["wandb>=0.19"]),
        (("WANDB_API_KEY",), ("wandb==0.20.1",), ["wandb==0.20.1"]),
    ],
)
def test_a_recipe_gets_wandb_where_the_job_gives_its_key(
    secrets: tuple[str, ...], requirements: tuple[str, ...], brought: list[str]
) -> None:
    environment = Environment(requirements=requirements)
    wanted = requirements_of(Job(name="a", recipe="sft", secrets=secrets, environment=environment))
    assert [line for line in wanted.ranges if line.startswith("wandb")] == brought
    assert [line for line in wanted.locked.splitlines() if line.startswith("wandb")] == brought
