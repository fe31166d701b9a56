"""``keep_finished`` on the box: of one group's runs the first to finish keep their weights, the others their figures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import BoxPaths
from tests.support.agent import Session, launch, run_id, running_agent, until_finished

PROGRAM = """
import os, pathlib, sys
out = pathlib.Path(os.environ["GPURUN_OUTPUTS"]) / sys.argv[1]
(out / "checkpoints" / "step-500").mkdir(parents=True)
(out / "checkpoints" / "step-500" / "model.safetensors").write_bytes(b"w" * 1000)
(out / "models").mkdir()
(out / "models" / "model.safetensors").write_bytes(b"w" * 1000)
(out / "metrics.json").write_text("{}")
sys.exit(int(sys.argv[2]))
"""


def train(agent: Session, name: str, group: str, job: dict[str, object], *, code: int = 0, keep: int = 1) -> str:
    """Runs it to its end; its id."""
    run = run_id(name)
    top = "." if job.get("recipe") else "out"
    command = [sys.executable, "-c", PROGRAM, top, str(code)]
    launch(agent, command, run, job={**job, "keep_finished": keep}, group=group, outputs=[] if top == "." else ["out"])
    until_finished(agent, run)
    return run


def left(paths: BoxPaths, run: str) -> list[str]:
    """What the manifest offers, without the log and the hardware's samples, which gpurun adds to a recipe's outputs."""
    offered = [each["path"].removeprefix("out/") for each in (read_json(paths.run(run).manifest) or {})["files"]]
    return [path for path in offered if not path.startswith("logs/")]


WEIGHTS = ["checkpoints/step-500/model.safetensors", "metrics.json", "models/model.safetensors"]


@pytest.mark.parametrize("job", [{"recipe": "sft"}, {"command": ["x"]}])
def test_the_first_run_that_ends_well_keeps_its_weights_and_each_run_its_figures(
    home: Path, paths: BoxPaths, job: dict[str, object]
) -> None:
    with running_agent(home) as agent:
        failed = train(agent, "failed", "one", job, code=1)
        first, second, third = (train(agent, name, "one", job) for name in ("first", "second", "third"))
        other = train(agent, "other", "two", job)
        assert [left(paths, run) for run in (failed, first, other)] == [WEIGHTS] * 3
        for run in (second, third):
            assert left(paths, run) == ["metrics.json"]
            assert not list(Path(paths.run(run).folder).rglob("*.safetensors"))
            told = {
                each["path"].removeprefix("out/"): each for each in agent.call("manifest", {"run_id": run})["left_out"]
            }
            assert "checkpoints" in next(iter(told)) and all(each["dispensable"] for each in told.values())
            assert {each["why"] for each in told.values()} == {f"keep_finished: 1, and {first} finished before"}
            flag = agent.call("status", {"run_ids": [run]})["runs"][0]["progress"]["flag"]
            assert flag["name"] == "outputs_removed" and "(0.0 GB) removed: keep_finished: 1" in flag["message"]


def test_as_many_as_the_job_says_keep_theirs_and_one_that_was_cleaned_leaves_its_place(
    home: Path, paths: BoxPaths
) -> None:
    with running_agent(home) as agent:
        first, second, third = (train(agent, name, "g", {"recipe": "sft"}, keep=2) for name in ("a", "b", "c"))
        assert [left(paths, run) == WEIGHTS for run in (first, second, third)] == [True, True, False]
        agent.call("clean", {"dry_run": False, "run_ids": [first]})
        assert left(paths, train(agent, "d", "g", {"recipe": "sft"}, keep=2)) == WEIGHTS


def test_what_an_interrupted_removal_left_is_no_result_and_goes_with_the_next_end(home: Path, paths: BoxPaths) -> None:
    with running_agent(home) as agent:
        train(agent, "a", "g", {"recipe": "sft"})
        second = train(agent, "b", "g", {"recipe": "sft"})
        hidden = Path(paths.run(second).folder) / ".removed-0"
        hidden.mkdir()
        train(agent, "c", "g", {"recipe": "sft"})
        assert not hidden.exists()
