"""Files are predicted row by row: each once, in order, as the model alone predicts it; whatever ends the process on the way."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_payload.settings.generation import Answering
from remote_payload.settings.predict import PredictSettings
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.inference import predicting
from remote_payload.train.inference.predicting import check_rows, predict_files
from remote_payload.train.inference.rows import read_rows, windows
from remote_payload.train.inference.target import Target, load_target
from remote_payload.train.inference.unfinished import Unfinished
from tests.support.models.smoke_models import causal_run, classifier_run
from tests.support.models.tiny_models import CORPUS

WORLD = World(0, 1, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Target:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("classifier")
    target = load_target(classifier_run(root, "bert"), base_path=root / "base")
    return replace(target, labels=(0, 3), threshold=2)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Target:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("causal")
    return load_target(causal_run(root), base_path=root / "base")


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(predicting.WINDOW_ROWS, "classifier", 16)
    monkeypatch.setitem(predicting.WINDOW_ROWS, "causal_lm", 4)


def ragged(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows with texts from nothing to longer than the model takes, in several scripts, with line breaks and quotes."""
    generator = random.Random(seed)
    parts = [*" ".join(CORPUS).split(), 'a "quote"', "two\nlines", "naïve", "日本語", "🙂", ","]
    return [
        {"id": index, "text": " ".join(generator.choices(parts, k=1 + int(generator.paretovariate(0.8)) % 90))}
        for index in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the form that the name ends in."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        return list(csv.DictReader(path.open(newline="", encoding="utf-8")))
    if path.suffix == ".parquet":
        import pyarrow.parquet

        found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def alone(target: Target, text: str) -> list[float]:
    """The probabilities of one text by itself, without padding."""
    ids = torch.tensor([target.tokenizer(text, truncation=True, max_length=target.max_length)["input_ids"]])
    with torch.no_grad():
        found: list[float] = target.logits(ids, torch.ones_like(ids), False).softmax(-1)[0].tolist()
    return found


@pytest.mark.parametrize("form", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("output", [".jsonl", ".csv", ".parquet"])
def test_every_row_is_predicted_once_in_order(classifier: Target, tmp_path: Path, form: str, output: str) -> None:
    rows = ragged(90, 1)
    first, second = write(tmp_path / f"a{form}", rows[:50]), write(tmp_path / f"b{form}", rows[50:])
    settings = PredictSettings([str(first), str(second)], str(tmp_path / f"out{output}"), keep=["id"])
    found = predict_files(classifier, settings, WORLD)
    written = read(tmp_path / f"out{output}")
    assert [str(row["id"]) for row in written] == [str(row["id"]) for row in rows]
    assert {row["file"] for row in written} == {str(first), str(second)}
    for row, given in zip(written, rows, strict=True):
        expected = alone(classifier, given["text"])
        share = row["probabilities"]["3"] if output == ".jsonl" else float(row["probability_3"])
        assert share == pytest.approx(expected[1], abs=1e-5)
        assert str(row["prediction"]) == ("3" if expected[1] > expected[0] else "0")
        assert str(row["positive"]).lower() == str(expected[1] > expected[0]).lower()
        assert float(row["positive_probability"]) == pytest.approx(expected[1], abs=1e-5)
    assert found.predicted == found.totals.rows == len(rows) and not found.totals.bad
    assert sum(found.totals.counts.values()) == len(rows)
    long = sum(len(classifier.tokenizer(row["text"])["input_ids"]) > classifier.max_length for row in rows)
    assert found.totals.cut == long > 0
    assert not Unfinished(Path(settings.output)).folder.exists()


def test_csv_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines"\r\n\r\n2,x\r\n3,\xff\r\n4,a,b\r\n5,last')
    rows = list(read_rows(str(path)))
    assert [row.line for row in rows] == [2, 5, 6, 7, 8] and rows[-1].end == path.stat().st_size
    assert rows[0].record().value == {"id": "1", "text": "two\r\nlines"}
    for row, complaint in ((rows[2], ":6: not UTF-8"), (rows[3], ":7: 3 fields, and the first line names 2")):
        with pytest.raises(InputError, match=complaint):
            row.record()


def test_a_bad_row_stops_with_its_place_or_is_marked(classifier: Target, tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in ragged(40, 2)]
    rows[20:20] = ["not json", '{"id": 1}', '{"text": 7, "id": 1}', '{"id": 1, "text": "half \\ud800"}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(rows) + "\n")
    settings = PredictSettings([str(path)], str(tmp_path / "out.jsonl"), keep=["id"])
    with pytest.raises(InputError, match=r"a\.jsonl:21: not valid JSON"):
        predict_files(classifier, settings, WORLD)
    count, problems = check_rows(settings, "classifier")
    assert count == 44 and len(problems) == 4 and "a.jsonl:22: no field 'text'" in problems[1]
    found = predict_files(classifier, replace(settings, bad_rows="mark"), WORLD)
    assert found.predicted == 28, "the window before the bad row was kept"
    written = read(tmp_path / "out.jsonl")
    assert [index for index, row in enumerate(written) if "error" in row] == [20, 21, 22, 23]
    assert found.totals.bad == 4 and found.totals.rows == len(written) == 44


def test_answers_are_those_of_the_model_alone(writer: Target, tmp_path: Path) -> None:
    prompts = [text[: 5 + 7 * index] for index, text in enumerate(CORPUS)]
    write(tmp_path / "a.jsonl", [{"prompt": prompt} for prompt in prompts])
    told = Answering(max_new_tokens=8)
    settings = PredictSettings([str(tmp_path / "a.jsonl")], str(tmp_path / "out.jsonl"), answering=told)
    predict_files(writer, settings, WORLD)
    for row, prompt in zip(read(tmp_path / "out.jsonl"), prompts, strict=True):
        ids = writer.tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            out = writer.model.generate(
                **ids, max_new_tokens=8, do_sample=False, pad_token_id=1, eos_token_id=writer.end_tokens, top_k=None
            )
        expected = writer.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert row["answer"] == expected and row["tokens"] <= 8


def test_messages_are_asked_with_the_template_and_without_their_answer(writer: Target, tmp_path: Path) -> None:
    target = replace(writer, prompting={"chat": True, "end_tokens": [3], "system_prompt": "Be short."})
    chats = [
        [{"role": "user", "content": "The ship"}],
        [{"role": "user", "content": "The ship"}, {"role": "assistant", "content": "x"}],
    ]
    write(tmp_path / "a.jsonl", [{"messages": chat} for chat in chats] + [{"prompt": "The ship"}])
    told = Answering(max_new_tokens=6)
    predict_files(
        target, PredictSettings([str(tmp_path / "a.jsonl")], str(tmp_path / "o.jsonl"), answering=told), WORLD
    )
    answers = [row["answer"] for row in read(tmp_path / "o.jsonl")]
    assert len(set(answers)) == 1


@pytest.mark.parametrize("seed", range(4))
def test_what_a_kill_leaves_is_gone_on_with(classifier: Target, tmp_path: Path, seed: int) -> None:
    """kill -9 at random moments of forked processes; the file is byte for byte that of one that nobody killed."""
    generator = random.Random(seed)
    rows = ragged(300, seed)
    path = write(tmp_path / "a.jsonl", rows)
    whole = PredictSettings([str(path)], str(tmp_path / "whole.jsonl"), keep=["id"])
    began = time.monotonic()
    predict_files(classifier, whole, WORLD)
    took = time.monotonic() - began
    killed = replace(whole, output=str(tmp_path / "killed.jsonl"))
    deaths = 0
    for _ in range(6):
        deaths += _killed_after(classifier, killed, generator.uniform(0, took / 3))
    if not (tmp_path / "killed.jsonl").exists():
        predict_files(classifier, killed, WORLD)
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert deaths, "no process was killed while it predicted"


def _killed_after(target: Target, settings: PredictSettings, seconds: float) -> bool:
    """Whether a process that predicts was killed after so long, before it was done."""
    if Path(settings.output).exists():
        return False
    child = os.fork()
    if child == 0:
        try:
            predict_files(target, settings, WORLD)
        finally:
            os._exit(0)
    time.sleep(seconds)  # the moment is the trial: nothing is waited for
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("seed", range(20))
def test_any_torn_end_of_the_files_is_cut_off(classifier: Target, tmp_path: Path, seed: int) -> None:
    """Rows of a window that was not noted, and half a line of the journal: what a kill between two writes can leave."""
    generator = random.Random(seed)
    path = write(tmp_path / "a.jsonl", ragged(100, 5))
    settings = PredictSettings([str(path)], str(tmp_path / "out.jsonl"))
    unfinished = Unfinished(Path(settings.output))
    stop = generator.randrange(1, 6)

    def stopping(progress: Any) -> None:
        if len(unfinished.done()) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(classifier, settings, WORLD, stopping)
    rows, journal = unfinished.folder / "rows-0.jsonl", unfinished.folder / "windows-0.jsonl"
    listed = journal.read_bytes()
    if generator.random() < 0.5:
        with rows.open("ab") as file:
            file.write(b'{"file": "a", "li' * generator.randrange(1, 9))
    torn = generator.randrange(len(listed.splitlines(keepends=True)[-1])) if generator.random() < 0.7 else 0
    journal.write_bytes(listed[: len(listed) - torn])
    predict_files(classifier, settings, WORLD)
    assert [row["line"] for row in read(tmp_path / "out.jsonl")] == list(range(1, 101))


@pytest.mark.parametrize("output", [".jsonl", ".csv", ".parquet"])
def test_ranks_share_the_windows_and_another_number_of_ranks_goes_on(
    classifier: Target, tmp_path: Path, output: str
) -> None:
    path = write(tmp_path / "a.jsonl", ragged(200, 6))
    whole = PredictSettings([str(path)], str(tmp_path / f"whole{output}"))
    predict_files(classifier, whole, WORLD)
    shared = replace(whole, output=str(tmp_path / f"shared{output}"))
    # Ranks 1 and 2 of three, each until it has done what is its own; then a single rank does what is left.
    unfinished = Unfinished(Path(shared.output))
    with unfinished.begun(predicting._about(classifier, shared, [str(path)])):
        for rank in (1, 2):
            part = predicting.PartWriter(unfinished.folder, rank)
            for window in windows([str(path)], 16):
                if window.number % 3 == rank:
                    part.add(*predicting.predict_window(classifier, shared, window))
            part.close()
    assert 0 < len(unfinished.done()) < 13
    found = predict_files(classifier, shared, WORLD)
    assert found.predicted < 200 == found.totals.rows
    assert read(tmp_path / f"shared{output}") == read(tmp_path / f"whole{output}")


def test_another_model_or_input_is_not_gone_on_with(classifier: Target, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ragged(40, 7))
    settings = PredictSettings([str(path)], str(tmp_path / "out.jsonl"))

    def stopping(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(classifier, settings, WORLD, stopping)
    with pytest.raises(InputError, match="another target"):
        predict_files(replace(classifier, identity="other"), settings, WORLD)
    with pytest.raises(InputError, match="another settings"):
        predict_files(classifier, replace(settings, field="id"), WORLD)
    write(path, ragged(41, 7))
    with pytest.raises(InputError, match="another input"):
        predict_files(classifier, settings, WORLD)


def test_an_output_is_never_overwritten_and_has_a_form(classifier: Target, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ragged(3, 8))
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        predict_files(classifier, PredictSettings([str(path)], str(tmp_path / "out.jsonl")), WORLD)
    with pytest.raises(InputError, match="by the end of its name"):
        predict_files(classifier, PredictSettings([str(path)], str(tmp_path / "out.txt")), WORLD)
    with pytest.raises(InputError, match="prediction is the name of a predicted field"):
        predict_files(classifier, PredictSettings([str(path)], str(tmp_path / "o.csv"), keep=["prediction"]), WORLD)
    assert (tmp_path / "out.jsonl").read_text() == "mine"
