"""The verb ``share`` through a real agent: what a run wrote becomes data of its box, whole or not at all."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from runner.domain.errors import LaunchError
from tests.support.agent import Session, launch, log_of, run_id, until_finished, wait_until

WRITES = """
import os, pathlib, sys
out = pathlib.Path("out")
(out / "best").mkdir()
(out / "best/weights.safetensors").write_bytes(os.urandom(1 << 16))
(out / "best/notes.txt").write_text("from " + os.environ["GPURUN_RUN_ID"])
(out / "table.csv").write_text("a,b\\n1,2\\n")
"""


def wrote(agent: Session, script: str = WRITES, **args: Any) -> str:
    run = run_id("writer")
    launch(agent, ["python3", "-c", script], run, outputs=["out"], **args)
    return run


def outputs_of(agent: Session, run: str) -> Path:
    return Path(BoxPaths(agent.root).run(run).outputs)


def data_of(agent: Session, key: str) -> Path:
    return Path(BoxPaths(agent.root).data(key))


def test_a_second_run_reads_what_the_first_wrote_and_neither_can_change_it_for_the_other(agent: Session) -> None:
    first = wrote(agent)
    until_finished(agent, first)
    folder = agent.call("share", {"run_id": first, "path": "out/best"})
    table = agent.call("share", {"run_id": first, "path": "out/table.csv"})
    assert (folder["files"], folder["member"]) == (2, None) and (table["files"], table["member"]) == (1, "table.csv")
    assert agent.call("share", {"run_id": first, "path": "out/best"}) == folder  # and no second copy
    assert len(list(data_of(agent, "x").parent.glob("best-*"))) == 1
    data = [
        {"path": "start", "key": folder["key"], "member": None},
        {"path": "t.csv", "key": table["key"], "member": "table.csv"},
    ]
    reader = run_id("reader")
    launch(agent, ["python3", "-c", "print(open('start/notes.txt').read(), open('t.csv').read())"], reader, data=data)
    assert until_finished(agent, reader)["outcome"] == "succeeded"
    assert log_of(agent, reader).decode() == f"from {first} a,b\n1,2\n\n"
    for name in ("weights.safetensors", "notes.txt"):  # a command may write in place: copies
        ours, theirs = outputs_of(agent, first) / "out/best" / name, data_of(agent, folder["key"]) / name
        assert ours.read_bytes() == theirs.read_bytes() and ours.stat().st_ino != theirs.stat().st_ino


def test_the_weights_of_a_recipe_are_links_and_survive_a_new_best_model(agent: Session) -> None:
    run = wrote(agent, job={"recipe": "sft"})
    until_finished(agent, run)
    best = outputs_of(agent, run) / "out/best"
    (best / "manifest.json").write_text("{}")
    key = agent.call("share", {"run_id": run, "path": "out/best"})["key"]
    shared = data_of(agent, key)
    before = (shared / "weights.safetensors").read_bytes()
    assert os.path.samefile(shared / "weights.safetensors", best / "weights.safetensors")
    assert not os.path.samefile(shared / "notes.txt", best / "notes.txt")
    best.rename(best.with_name("old"))
    best.mkdir()
    (best / "weights.safetensors").write_bytes(b"new")
    assert (shared / "weights.safetensors").read_bytes() == before
    assert agent.call("share", {"run_id": run, "path": "out/best"})["key"] != key


def test_a_run_that_goes_on_gives_what_is_complete_and_nothing_else(agent: Session) -> None:
    script = WRITES + 'print("written", flush=True)\nwhile not (out / "go").exists(): __import__("time").sleep(0.02)\n'
    run = wrote(agent, script)
    wait_until(lambda: b"written" in (outputs_of(agent, run).parent / "log").read_bytes())
    with pytest.raises(LaunchError, match=r"still goes on, and out/best of it is not complete"):
        agent.call("share", {"run_id": run, "path": "out/best"})
    (outputs_of(agent, run) / "out/best/manifest.json").write_text("{}")
    assert agent.call("share", {"run_id": run, "path": "out/best"})["files"] == 3
    with pytest.raises(LaunchError, match=r"table\.csv of it is not complete"):
        agent.call("share", {"run_id": run, "path": "out/table.csv"})
    (outputs_of(agent, run) / "out/go").write_text("")
    until_finished(agent, run)
    assert agent.call("share", {"run_id": run, "path": "out/table.csv"})["files"] == 1


def test_what_is_no_output_of_the_run_is_refused_with_what_there_is(agent: Session, tmp_path: Path) -> None:
    assert agent.call("share", {"run_id": run_id(), "path": "out/best"})["key"] is None
    run = wrote(agent)
    until_finished(agent, run)
    out = outputs_of(agent, run) / "out"
    (out / "elsewhere").symlink_to(tmp_path)
    for path in ("nowhere", "out/best/../../../job.json", "out/elsewhere", "/etc"):
        with pytest.raises(LaunchError, match="has no output") as refused:
            agent.call("share", {"run_id": run, "path": path})
        assert refused.value.hint == "Its outputs are: out"
    (out / "best/link").symlink_to("/etc/hostname")
    with pytest.raises(LaunchError, match="holds a link that leads out of it: link"):
        agent.call("share", {"run_id": run, "path": "out/best"})
    (out / "best/link").unlink()
    (out / "best/link").symlink_to("notes.txt")
    key = agent.call("share", {"run_id": run, "path": "out/best"})["key"]
    assert (data_of(agent, key) / "link").read_text() == f"from {run}"


def test_the_copy_is_the_outputs_file_by_file_whatever_they_are(agent: Session) -> None:
    chance = random.Random(20260102)
    run = wrote(agent)
    until_finished(agent, run)
    out = outputs_of(agent, run) / "out"
    for trial in range(6):
        top = out / f"tree{trial}"
        top.mkdir()
        for number in range(chance.randrange(1, 12)):
            place = top.joinpath(*(chance.choice("abc") + "-d" for _ in range(chance.randrange(3))), f"ü {number}.bin")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(chance.randbytes(chance.randrange(5000)))
            os.utime(place, ns=(0, chance.randrange(10**18)))
        answer = agent.call("share", {"run_id": run, "path": f"out/{top.name}"})
        assert contents(data_of(agent, answer["key"])) == contents(top)
        assert answer["bytes"] == sum(len(content) for content in contents(top).values())
    assert not list(Path(BoxPaths(agent.root).incoming("x")).parent.glob("*"))


def contents(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_what_was_shared_outlives_the_run_that_wrote_it(agent: Session) -> None:
    run = wrote(agent)
    until_finished(agent, run)
    key = agent.call("share", {"run_id": run, "path": "out/best"})["key"]

    shutil.rmtree(RunPaths(str(outputs_of(agent, run).parent)).folder)
    reader = run_id("reader")
    launch(agent, ["cat", "start/notes.txt"], reader, data=[{"path": "start", "key": key, "member": None}])
    assert until_finished(agent, reader)["outcome"] == "succeeded" and log_of(agent, reader).decode() == f"from {run}"
    assert json.loads((data_of(agent, key).parent / f".{key}.json").read_text())["digest"]
