"""``gpurun compare`` over records, kept code and fetched outputs on this machine, as a terminal of 80 columns and as JSON."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from runner import store
from runner.cli.group import gpurun
from runner.cli.side_by_side import Line, letter, side_by_side
from runner.domain import places
from runner.domain.answers.results import CHOSEN, Evaluation, Results
from runner.domain.answers.status import Status
from runner.domain.job import Code, Environment, Job
from runner.domain.run import Run
from runner.files import write_json
from runner.push import kept_code
from runner.push.digest import digest
from runner.push.selection import select_code
from runner.workflow.comparing import compare as comparing
from tests.support.document_types import TYPES, differences

EVIL = "\x1b]0;gone\x07\x1b[2Jevil"
TRAIN = "import sys\n\nrate = 0.1\nprint('trained')\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))


def code(folder: Path, **files: str) -> str:
    """Keeps a copy of a folder with these files; its digest."""
    for name, text in files.items():
        path = folder / name.replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    selection = select_code(Job("a", command=("true",), code=Code()).at(folder))
    kept_code.keep(selection, digest(selection))
    return digest(selection)


def made(number: int, job: Job, *, sent: str = "", loss: float | None = None, at: str = "box") -> Run:
    """A run that is over, with its record, and what it measured as ``gpurun sweep`` notes it."""
    run = Run(f"{job.name}-20260102-1420{number:02}-{number:04x}", job, at, 1.0, launched=loss is not None, code=sent)
    if loss is not None:
        progress = {"step": {"step": 4, "total": 4, "loss": loss, "tokens_per_second": 1000.0 + number}}
        run.status = Status(
            run.run_id, "finished", "succeeded", started_at=10.0, ended_at=10.0 + 60 * number, progress=progress
        )
        evaluations = (Evaluation("validation", 4, {"loss": loss, "accuracy": 1 - loss}),)
        write_json(
            places.run_folder(run.run_id) / "results.json",
            Results(run.status, evaluations, Evaluation(CHOSEN, 2, {"loss": loss - 0.01})).as_json(),
        )
    store.save(run)
    return run


def call(*words: str, check: int = 0) -> Result:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(gpurun, ["compare", *words])
    assert done.exit_code == check or check == 2, done.output
    assert done.exception is None or check or isinstance(done.exception, SystemExit), done.exception
    return done


def recipe(rate: float, **settings: object) -> Job:
    return Job(
        "legal",
        recipe="classify",
        settings={"model": "m", "train": "data", "optimizer": {"learning_rate": rate}, **settings},
    )


def outputs(run: Run, torch: str, sha: str) -> None:
    """The record of a training, as far as it is read; one value in it is hostile."""
    write_json(
        run.outputs_here / "training_metadata.json",
        {
            "libraries": {"python": "3.11.2", "torch": torch, "peft": EVIL},
            "hardware": {"gpus": [{"name": f"NVIDIA {torch}", "memory_bytes": 24 << 30}] * 2, "driver": "550.54.14", "cpus": 8},
            "data": [{"path": "data/a.jsonl", "sha256": sha, "bytes": 9, "rows": 1}, {"side": "train", "rows": 1}],
            "training": {"tokens": 5000},
        },
    )  # fmt: skip


def test_two_runs_of_a_recipe() -> None:
    first = made(1, recipe(2e-4, epochs=3.0), loss=0.5)  # the first two settings as their defaults
    second = replace(made(2, recipe(1e-3), loss=0.25), data={"data": f"data-{'b' * 64}"})
    store.save(second)
    outputs(first, "2.8.0", "a" * 64)
    outputs(second, "2.9.1", "b" * 64)
    shown = call(first.run_id, second.run_id)
    assert max(map(len, shown.stdout.splitlines())) <= 80 and "\x1b" not in shown.output and shown.stderr == ""
    words = [line.split() for line in shown.stdout.splitlines()]
    assert ["settings.optimizer.learning_rate", "0.0002", "0.001", "+0.0008"] in words
    assert not any("epochs" in line for line in shown.stdout.splitlines())
    assert ["validation", "loss", "0.5", "0.25*", "-0.25"] in words
    assert ["validation", "accuracy", "0.5", "0.75*", "+0.25"] in words
    assert [f"{CHOSEN}", "loss", "0.49", "0.24*", "-0.25"] in words
    assert ["torch", "2.8.0", "2.9.1"] in words and not any("driver" in line for line in words)
    assert ["data", "-", "b" * 12] in words and ["data/a.jsonl", "changed", "9", "B"] in words
    assert any(line[:1] == ["elapsed"] and line[-2:] == ["+1m", "00s"] for line in words)
    everything = call(first.run_id, second.run_id, "--all").stdout
    assert (
        "settings.epochs" in everything
        and "550.54.14" in everything
        and "evil" in everything
        and "\x1b" not in everything
    )

    document = json.loads(call(first.run_id, second.run_id, "--json").stdout)
    assert differences(document, TYPES["Compare"], set()) == []
    assert [row for row in document["settings"] if row["name"].startswith("settings.")] == [
        {"name": "settings.optimizer.learning_rate", "values": [2e-4, 1e-3]}
    ]
    back = json.loads(call(second.run_id, first.run_id, "--json").stdout)
    for topic in ("settings", "code", "data", "environment", "metrics", "course"):
        turned = [{**row, "values": row["values"][::-1]} for row in back[topic]]
        if topic == "metrics":
            turned = [{**row, "best": [1 - place for place in row["best"]]} for row in turned]
        assert sorted(map(json.dumps, turned)) == sorted(map(json.dumps, document[topic]))


HOSTILE = (
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    "",
    EVIL * 500,
    [],
    [EVIL],
    {},
    {EVIL: EVIL},
    [[1]],
    {"a": {"b": 1}},
)


def spoilt(value: Any, draw: random.Random) -> Any:
    """The same JSON with one part of it replaced by a hostile one."""
    if not value or not isinstance(value, dict | list) or draw.random() < 0.2:
        return draw.choice(HOSTILE)
    key = draw.choice(sorted(value)) if isinstance(value, dict) else draw.randrange(len(value))
    changed = copy.deepcopy(value)
    changed[key] = spoilt(value[key], draw)
    return changed


@pytest.mark.parametrize("seed", range(30))
def test_a_record_that_a_box_has_spoilt_is_shown_as_far_as_it_goes(seed: int) -> None:
    draw = random.Random(seed)
    runs = [made(number, recipe(1e-3), loss=0.5) for number in (1, 2)]
    for run in runs:
        outputs(run, "2.8.0", "a" * 64)
        file = run.outputs_here / "training_metadata.json"
        record = json.loads(file.read_text())
        for _ in range(draw.randrange(1, 6)):
            record = spoilt(record, draw)
        file.write_text(json.dumps(record))
    shown = call(*(run.run_id for run in runs), "--all")
    assert "\x1b" not in shown.output and "learning_rate" in shown.stdout
    document = json.loads(call(*(run.run_id for run in runs), "--json").stdout)
    assert differences(document, TYPES["Compare"], set()) == []


def test_a_run_and_itself() -> None:
    run = made(1, recipe(1e-3), loss=0.5)
    document = json.loads(call(run.run_id, run.run_id, "--json").stdout)
    assert not any(
        document[name] for name in ("settings", "code", "code_files", "data", "environment", "metrics", "course")
    )
    assert "no difference" in call(run.run_id, run.run_id).stdout


def test_a_program_of_ones_own_tells_its_machine_by_the_samples_of_its_box() -> None:
    runs = [made(number, Job("mine", command=("true",)), loss=0.5) for number in (1, 2)]
    for run, size in zip(runs, (24 << 30, EVIL), strict=True):
        assert run.status
        sample = {"gpus": [{"index": 0, "memory_total": 80 << 30}, {"index": 1, "memory_total": size}]}
        store.save(replace(run, status=replace(run.status, progress={"hardware": sample})))
    words = [line.split() for line in call(*(run.run_id for run in runs)).stdout.splitlines()]
    assert [
        "gpus",
        "of",
        "the",
        "box",
        "1",
        "×",
        "85.9",
        "GB,",
        "1",
        "×",
        "25.8",
        "GB",
        "1",
        "×",
        "85.9",
        "GB",
    ] in words


def test_code_of_a_program_of_ones_own(tmp_path: Path) -> None:
    job = Job("mine", command=("python", "train.py"))
    long = "\n".join(map(str, range(200)))
    runs = [
        made(1, job, sent=code(tmp_path / "a", train_py=TRAIN, old_py="gone\n", same_py="1\n"), loss=0.5),
        made(
            2,
            job,
            sent=code(tmp_path / "b", train_py=TRAIN.replace("0.1", "0.2"), same_py="1\n", bin_py="\0"),
            loss=0.5,
        ),
        made(3, job, sent=code(tmp_path / "c", train_py=TRAIN, same_py="1\n", old_py="gone\n", long_py=long), loss=0.5),
        made(4, job, sent=code(tmp_path / "d", train_py=TRAIN, old_py="gone\n", same_py="1\n"), loss=0.5),
        made(5, job, sent="e" * 64, loss=0.5),
    ]
    ids = [run.run_id for run in runs]
    shown = call(ids[0], ids[1]).stdout
    words = [line.split() for line in shown.splitlines()]
    for line in ("train.py changed 40 B", "old.py removed 5 B", "bin.py added 1 B"):
        assert line.split() in words, line
    assert "-rate = 0.1\n+rate = 0.2" in shown and "bin.py is no text" in shown and "same.py" not in shown
    assert (
        "lines of difference: --diff" in call(ids[0], ids[2]).stdout and "+199" in call(ids[0], ids[2], "--diff").stdout
    )
    assert runs[0].code != runs[3].code  # the files are as old as the test, and have the same content
    assert "code" not in call(ids[0], ids[3]).stdout.splitlines()
    gone = call(ids[0], ids[4])
    assert f"the code is not kept here of {ids[4]}" in gone.stderr and "eeeeeeeeeeee" in gone.stdout
    three = [line.split() for line in call(*ids[:3]).stdout.splitlines()]
    (train,) = [line for line in three if line[:1] == ["train.py"]]
    assert train[1] == train[3] != train[2]


def test_a_run_that_never_started_and_an_unknown_one() -> None:
    run, other = made(1, recipe(1e-3), loss=0.5), made(2, recipe(2e-3))
    shown = call(run.run_id, other.run_id)
    assert f"{other.run_id} was never started" in shown.stderr and "learning_rate" in shown.stdout
    for words in ([run.run_id, "no-such-run"], [run.run_id]):
        failed = CliRunner().invoke(gpurun, ["compare", *words])
        assert failed.exception is not None and getattr(failed.exception, "exit_code", 0) == 2, failed


def test_a_sweep_has_a_column_for_each_run() -> None:
    for number in range(12):
        run = made(
            number,
            replace(recipe(1e-3, seed=number), environment=Environment(variables={"NOTE": EVIL})),
            loss=0.5 - number / 100,
        )
        store.save(replace(run, submission="aaaa0000"))
    shown = call("aaaa0000").stdout
    assert max(map(len, shown.splitlines())) <= 80 and "\x1b" not in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["settings.seed", *map(str, range(12))] in lines or ["L", "11"] in lines
    assert any(line[:1] == ["L"] and line[-1] == "0.39*" for line in lines)


@pytest.mark.parametrize("seed", range(30))
def test_everything_is_shown_within_the_width(seed: int) -> None:
    draw = random.Random(seed)
    runs, width = draw.randrange(2, 30), draw.choice([80, 100, 200])
    heads = [letter(place) for place in range(runs)]
    assert len(set(heads)) == runs
    words = ["".join(draw.choices("abc", k=draw.choice([1, 3, 9]))) for _ in range(5)]
    lines = [
        Line(f"name-{number}", tuple(" ".join(draw.choices(words, k=draw.choice([1, 2, 30]))) for _ in heads))
        for number in range(6)
    ]
    shown = side_by_side(heads, lines, runs, width)
    assert max(map(len, shown)) <= width
    told = "\n".join(shown).split()
    for line in lines:
        assert line.name in told
        for cell in line.cells:
            assert " ".join(cell.split()) in " ".join(told)


def test_only_boxes_that_may_know_more_are_asked_and_one_that_is_away_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere = "root@127.0.0.1:1"  # nobody listens there
    known, here = made(1, recipe(1e-3), loss=0.5, at=nowhere), made(2, recipe(1e-3), loss=0.5, at=nowhere)
    gone, unknown, running = (made(number, recipe(1e-3), loss=0.5, at=nowhere) for number in (3, 4, 5))
    never = made(6, recipe(1e-3), at=nowhere)
    for run in (here, gone, unknown, running):
        (places.run_folder(run.run_id) / "results.json").unlink()
    event = {"t": 1.0, "type": "eval", "name": "validation", "step": 9, "metrics": {"loss": 0.125}}
    (places.run_folder(here.run_id) / "events.jsonl").write_text(json.dumps(event) + "\n")
    store.save(replace(gone, done=True))
    store.save(replace(running, status=Status(running.run_id, "running", started_at=1.0, now=2.0)))
    asked = []
    look = comparing.look
    monkeypatch.setattr(comparing, "look", lambda sweep, report: (asked.append(sweep.newest), look(sweep, report))[1])
    ids = [run.run_id for run in (known, here, gone, unknown, running, never)]
    shown = call(*ids, "--all")
    assert [[run.run_id for run in runs] for runs in asked] == [[unknown.run_id, running.run_id]]
    assert shown.stderr.count("its runs are shown as they were last seen") == 1, shown.stderr
    assert f"no evaluation is known of {gone.run_id}, {unknown.run_id}, {running.run_id}" in shown.stderr
    words = [line.split() for line in shown.stdout.splitlines()]
    assert ["validation", "loss", "0.5", "0.125*", "-", "-", "-", "-"] in words
