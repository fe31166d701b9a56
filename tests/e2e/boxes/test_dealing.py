"""One sweep on two boxes: the runs are dealt to their queues over one connection a box, and few requests."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.transport import link as opening
from runner.transport.session import AgentSession
from tests.support.boxes.mortal_box import MortalBox
from tests.support.cli import Gpurun
from tests.support.recorded import command

pytestmark = pytest.mark.stand_in  # GPUs are a file
PROGRAM = "print('on', flush=True)"


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[MortalBox, MortalBox]]:
    made = MortalBox(tmp_path / "box-a", gpus=8), MortalBox(tmp_path / "box-b", gpus=4)
    yield made
    for box in made:
        box.end()


@pytest.fixture
def here(gpurun: Gpurun, monkeypatch: pytest.MonkeyPatch) -> Gpurun:
    """Commands in this process have the state folder of ``gpurun``."""
    for name, value in gpurun.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GPURUN_HOME", str(gpurun.home))
    return gpurun


def sweep(job: Any, count: int, program: str = PROGRAM, **fields: Any) -> str:
    values = [str(number) for number in range(count)]
    file = job(program, resources={"gpus": 1}, queue=True, sweep={"environment.variables.LR": values}, **fields)
    return str(file)


def logins(box: MortalBox) -> int:
    return (box.local.folder / "sshd.log").read_text().count("Accepted publickey")


def hosts(*boxes: MortalBox) -> list[str]:
    return [word for box in boxes for word in ("--host", box.address)]


def test_twenty_runs_on_two_boxes_cost_one_connection_a_box_and_two_requests_a_run(
    here: Gpurun, job: Any, boxes: tuple[MortalBox, MortalBox], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    opened: list[str] = []
    honest, honest_open = AgentSession.stream, opening.open_link

    def stream(self: AgentSession, verb: str, *args: Any, **options: Any) -> Iterator[Any]:
        asked.append(verb)
        return honest(self, verb, *args, **options)

    def open_link(host: Any, *args: Any) -> Any:
        opened.append(str(host))
        return honest_open(host, *args)

    monkeypatch.setattr(AgentSession, "stream", stream)
    monkeypatch.setattr(opening, "open_link", open_link)
    code, out, err = command("submit", sweep(job, 20), *hosts(*boxes), "--json")
    assert code == 0, err
    document = json.loads(out)
    assert len(document["runs"]) == 20 and all(run["launched"] for run in document["runs"])
    assert len(set(opened)) == len(opened) == 2
    assert [logins(box) for box in boxes] == [2, 2]  # and rsync's own, for the code of the first run
    count = Counter(asked)
    assert count["launch"] == 20 and sum(count.values()) - 20 <= 2 * 5, count


def test_runs_are_dealt_by_free_gpus_and_a_box_that_does_not_answer_gets_none(
    gpurun: Gpurun, job: Any, boxes: tuple[MortalBox, MortalBox]
) -> None:
    first, second = boxes
    dead = re.sub(r"-p \d+", "-p 9", first.address)
    file = sweep(job, 12)
    words = [file, "--host", dead, *hosts(first, second)]
    before = gpurun.json("submit", *words, "--dry-run")
    assert before["ready"] and [each["host"] for each in before["left_out"]] == [dead]
    assert Counter(each["host"] for each in before["dealt"]) == {first.address: 8, second.address: 4}
    shown = gpurun("submit", *words, "--dry-run").stdout
    assert "would go to" in shown and "8 of 8 GPUs are free" in shown and "would get no run" in shown
    assert gpurun.json("list")["runs"] == []

    said = gpurun.json("submit", *words)
    assert [(each["job"], each["host"], each["why"]) for each in said["dealt"]] == [
        (each["job"], each["host"], each["why"]) for each in before["dealt"]
    ]
    assert said["left_out"][0]["error"]["kind"] == "ConnectFailed"
    assert [run["host"] for run in said["runs"]] == [each["host"] for each in said["dealt"]]
    for box, runs in ((first, 8), (second, 4)):
        assert len(list(Path(box.paths.runs).iterdir())) == runs


def test_what_a_box_cannot_start_goes_to_the_others_and_starts_once(
    gpurun: Gpurun, job: Any, boxes: tuple[MortalBox, MortalBox]
) -> None:
    first, second = boxes
    file = sweep(job, 4)
    gpurun("submit", sweep(job, 1, name="before"), "--host", first.address)  # it has a root now
    incoming = Path(first.paths.root) / "incoming"
    incoming.rmdir()
    incoming.write_text("in the way")
    done = gpurun("submit", file, *hosts(first, second))
    assert f"{first.address} started no more runs" in done.stderr
    runs = gpurun.json("list")["runs"][1:]
    assert len(runs) == 4 and all(run["launched"] and run["host"] == second.address for run in runs)
    assert len(list(Path(second.paths.runs).iterdir())) == 4

    error = gpurun.json("submit", sweep(job, 1, name="large"), *hosts(*boxes), "--set", "resources.gpus=9", check=3)
    assert "can run on none of the boxes" in error["error"]["message"]


def test_one_box_under_two_names_counts_once(gpurun: Gpurun, job: Any, boxes: tuple[MortalBox, MortalBox]) -> None:
    box, _ = boxes
    other = box.address.replace("127.0.0.1", "localhost")
    done = gpurun("submit", sweep(job, 2), "--host", box.address, "--host", other)
    assert "it is the same box as" in done.stderr
    assert {run["host"] for run in gpurun.json("list")["runs"]} == {box.address}
