"""Whatever a box answers, and whatever stands in a file of this machine, ends in an exit code of its own and a sentence: never in a bug of
gpurun's, never in a code that the box chose, and with nothing written outside GPURUN_HOME and the target folder."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.serve import VERBS
from remote_payload.agent.wire import protocol
from runner import store
from runner.domain.errors import GpurunError
from runner.domain.places import run_folder
from runner.transport.agent import Agent
from tests.support.recorded import PEER, Recording, command, files_outside, record, sandbox, told
from tests.support.replay import Said
from tests.support.trials import trials

NASTY = "\x1b]52;c;aGFja2Vk\x07\x1b[2J\u202e\x9b5n"
GONE = object()
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**30, 10**400, 1.5, -1e300, 1e308, "", "x", NASTY, "\ud800", "\0", "../../../x",
    "/../../1", "/etc/passwd", "-rf", "a\nb", "é" * 300, "x" * 20000, "7", [], [1], [[]], [None], ["x", NASTY], {}, {"a": 1},
    {NASTY: NASTY}, [{}], GONE,
]  # fmt: skip
KINDS = [
    "UserError",
    "LinkLost",
    "HostKeyChanged",
    "GpurunError",
    "RunLost",
    "JobFileError",
    "__init__",
    "SystemExit",
    7,
    None,
    ["x"],
    NASTY,
]
NAMED = {
    "status": ["status"], "follow": ["logs", "-f"], "stop": ["stop"], "manifest": ["fetch", "--into", "{target}"], "holdings": ["done"],
    "wipe": ["done"], "clean": ["clean", "--host", "box", "--yes"], "checkpoints": ["checkpoints"],
    "recover": ["resume", "--all", "--host", "box"], "results": ["sweep"], "use_gpu": ["hosts", "use-gpu", "box", "0"],
}  # fmt: skip
SUBMIT = ["submit", "{project}/job.yaml", "--host", "box"]
CODES = {0, 3, 4, 5, 6, 10, 11, 12}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with pytest.MonkeyPatch.context() as patch:
        made = record(tmp_path_factory.mktemp("recording"), patch)
    yield made


def test_every_verb_was_recorded_from_a_real_box_and_has_fields(recording: Recording) -> None:
    assert set(recording.frames) == set(VERBS)
    fields = {
        verb: sum(len(places(json.loads(body))) for kind, body in frames if kind in JSON)
        for verb, frames in recording.frames.items()
    }
    assert fields["status"] > 30 and fields["probe"] > 30 and fields["manifest"] > 8 and fields["stale"] > 20, fields


JSON = (protocol.RESULT, protocol.PROGRESS)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inner for place in [(*path, key), *places(each, (*path, key))]]


def changed(document: Any, chance: random.Random) -> tuple[Any, str]:
    """The document with one field replaced or removed, and what was done."""
    document = copy.deepcopy(document)
    there = places(document)
    if not there:
        return chance.choice(VALUES[:-1]), "the whole of it"
    place, value = chance.choice(there), chance.choice(VALUES)
    holder = document
    for key in place[:-1]:
        holder = holder[key]
    if value is GONE:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return document, f"{place} = {ascii(value)[:60] if not isinstance(value, int) else 'a number'}"


def lie(frames: list[Said], chance: random.Random) -> tuple[list[Said], str]:
    """The frames with one of them changed."""
    frames, number = list(frames), chance.randrange(len(frames))
    kind, body = frames[number]
    if chance.random() < 0.12:
        error = {"kind": chance.choice(KINDS), "message": chance.choice(VALUES[:-1]), "hint": "x", "meaning": ""}
        frames[number] = protocol.ERROR, json.dumps(error).encode()
        return frames[: number + 1], f"an error instead of frame {number}: {error['kind']!r}"
    if kind not in JSON or chance.random() < 0.06:
        kinds = [protocol.LOG, protocol.EVENTS, protocol.PROGRESS, protocol.RESULT, protocol.REQUEST, protocol.BLOB]
        payload = chance.choice(
            [
                b"",
                b"1234567",
                struct.pack(">Q", 1 << 63),
                struct.pack(">Q", 1 << 40) + b"x",
                b"[]",
                b"{",
                b'{"line": 7}',
            ]
        )
        frames[number] = chance.choice(kinds), payload
        return frames, f"frame {number} is {frames[number]!r}"
    document, what = changed(json.loads(body), chance)
    frames[number] = kind, json.dumps(document).encode()
    return frames, f"frame {number} ({kind!r}): {what}"


def direct(agent: Agent, verb: str) -> int:
    """Verbs that no command reaches on a machine without a GPU, as a command would call them; the exit code."""
    from runner.workflow.inference.sample import read_messages

    run_id = store.run_ids()[-1]

    def reach() -> None:
        with agent.listening(PEER["greeting"], PEER["reply"]):
            agent.reach([PEER])

    calls: dict[str, Any] = {
        "reach": reach,
        "install_payload": lambda: agent.install_payload("0" * 64, b""),
        "install_tools": lambda: agent.install_tools(["rsync"], lambda line: None),
        "patch": lambda: agent.patch({}, b""),
        "compare": lambda: agent.compare("x/1", b""),
        "share": lambda: agent.share(run_id, "models/best"),
        "stale": lambda: agent.stale(kill=False, gpus=1),
        "sample": lambda: list(read_messages(agent.sample(run_id, "remote_payload.recipes.sample", [], iter([b"{}"])))),
    }
    try:
        calls[verb]()
        return 0
    except GpurunError as error:
        error.message.encode()
        return error.exit_code


@trials("answers", quick=8, full=440)
def test_a_lie_about_one_field_of_one_answer(
    recording: Recording, chance: random.Random, seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb = sorted(VERBS)[int(seed.rpartition("-")[2]) % len(VERBS)]
    folder = sandbox(recording, tmp_path, monkeypatch)
    history: list[str] = []
    told_once: list[list[Said]] = []

    def change(asked: str, frames: list[Said]) -> list[Said]:
        if asked != verb:
            return frames
        if not told_once:
            lied, what = lie(frames, chance)
            told_once.append(lied)
            history.append(f"{verb}: {what}")
        return told_once[0]

    before = files_outside(folder)
    with told(recording, change, monkeypatch) as agent:
        words = NAMED.get(verb) or (SUBMIT if verb in ("probe", "provision", "seal", "launch") else None)
        if words is None:
            code, out, err = direct(agent, verb), "", ""
        else:
            if words[0] in ("stop", "status", "logs", "sweep"):
                unfinished()
            code, out, err = command(
                *(word.format(target=folder / "target", project=folder / "project") for word in words)
            )
    history.append(f"{words}: exit {code}\n{out}\n{err}")
    assert told_once, history  # the lie was heard
    assert code in CODES, "\n".join(history)
    assert "bug of gpurun" not in err and "Traceback" not in err, "\n".join(history)
    assert not set(out + err) & set("\x1b\x07\x9b\u202e"), "\n".join(history)
    assert files_outside(folder) == before, "\n".join(history)


def unfinished() -> None:
    """The run as it was before its end was seen, so that the box is asked."""
    run = store.load(store.run_ids()[-1])
    store.update(run, status=None)
    (run_folder(run.run_id) / "results.json").unlink(missing_ok=True)


def test_the_truth_is_believed(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lie every one of these succeeds, so that the trials above refuse lies and not the stand-in."""
    folder = sandbox(recording, tmp_path, monkeypatch)
    with told(recording, lambda verb, frames: frames, monkeypatch) as agent:
        for words in [*NAMED.values(), SUBMIT]:
            unfinished()
            code, out, err = command(
                *(word.format(target=folder / "target", project=folder / "project") for word in words)
            )
            assert code == 0 or (words == ["done"] and code == 6), (words, code, out, err)
        for verb in ("install_payload", "install_tools", "patch", "compare", "share", "stale", "sample", "reach"):
            assert direct(agent, verb) == 0


LOCAL = [
    ["list", "--json"],
    ["status"],
    ["logs"],
    ["stop"],
    ["fetch"],
    ["done"],
    ["checkpoints"],
    ["list"],
    ["hosts"],
    ["status", "--json"],
]


@trials("answers", quick=4, full=60)
def test_a_damaged_field_of_one_file_here(
    recording: Recording, chance: random.Random, seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sandbox(recording, tmp_path, monkeypatch)
    state = folder / "state"
    names = [f"runs/{recording.run_id}/run.json"] * 6 + [
        "hosts.json",
        f"runs/{recording.run_id}/outputs/.gpurun-fetched.json",
    ]
    file = state / chance.choice(names)
    document, what = changed(json.loads(file.read_text()), chance)
    file.write_text(json.dumps(document))
    before = files_outside(folder)
    with told(recording, lambda verb, frames: frames, monkeypatch):
        for words in chance.sample(LOCAL, 4):
            code, out, err = command(*words)
            history = f"{file.name}: {what}; {words}: exit {code}\n{out}\n{err}"
            assert code in CODES | {2}, history
            assert code != 2 or str(file) in err + out, history
            assert code == 0 or words[0] != "list", history
            assert "bug of gpurun" not in err and "Traceback" not in err, history
            assert not set(out + err) & set("\x1b\x07\x9b\u202e"), history
    assert files_outside(folder) == before
