"""``gpurun report`` tells what is known of a run, whatever of it is missing or damaged, and no secret."""

from __future__ import annotations

import html
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runner.cli.group import gpurun
from runner.domain import places
from runner.domain.job import Environment, Job
from runner.domain.progress import Silent
from runner.local_model.compare import Comparison
from runner.local_model.report import SmokeReport
from runner.workflow.inference import smoke_note
from runner.workflow.reporting.write import is_behind, leave_page, own_place, report_of, write
from tests.support.observing import report_runs
from tests.support.observing.report_runs import a_run, ended, write_events, write_output

TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF"  # of the form of a token, and of nobody


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))


def shown(file: Path) -> str:
    """The text of a page without its tags, scripts and styles."""
    text = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", file.read_text("utf-8"), flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


class Warned(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_page_tells_what_the_run_left(tmp_path: Path) -> None:
    run = report_runs.a_good_run()
    loaded = SmokeReport(
        folder=Path("best"), kind="causal_lm", device="mps", device_name="Apple M4", dtype="bfloat16", torch="2.9.0", load_seconds=1.0,
        samples=50, samples_per_second=9.0, tokens_per_second=None, peak_memory=1, counts=None, texts=(), not_opened=(),
        comparison=Comparison(50, 0.01, 3, 0.02, 50, 50, ()),
    )  # fmt: skip
    smoke_note.note(run, [smoke_note.verdict_of(loaded)])
    text = shown(write([run], tmp_path / "page.html").path)
    for wanted in (
        "succeeded", "3000 of 3000", "0.68 (0.34 an hour)", "out of memory: micro-batch 8 → 4", "the loss has not fallen for 300 steps",
        "3,000 (chosen)", "11,780", "3546254f6c9a70b4889bbcc803990aac702f58fc24e6ef8322f99f66ffb8048d", "settings.optimizer.learning_rate",
        "A pear, cut thin.", "Brie is a soft cheese", "2.9.0+cu128", "gpurun submit /home/ada/project/brie.yaml --host root@203.0.113.7",
        "best model: step 3000", "passed", "Apple M4", "50 of 50 answers as on the box", "GPU temperature", "perplexity",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_a_failure_is_told_with_its_evidence_and_advice(tmp_path: Path) -> None:
    text = shown(write([report_runs.a_failed_run()], tmp_path / "page.html").path)
    assert "failed (cuda oom)" in text and "Tried to allocate 2.00 GiB" in text and "use a larger GPU" in text
    assert "loss.backward()" in text and "environment.variables.EPOCHS" in text


def test_the_best_of_each_metric_is_marked(tmp_path: Path) -> None:
    run = report_runs.a_good_run()
    write_events(run, [
        {"t": 1e9 + step, "type": "eval", "name": "validation", "step": step, "metrics": {"loss": loss, "unheard": loss}}
        for step, loss in enumerate([3.0, 1.25, 2.0], 1)
    ])  # fmt: skip
    page = write([run], tmp_path / "page.html").path.read_text("utf-8")
    assert re.findall(r'class="best">([^<]*)<', page) == ["1.25"]


def test_no_secret_is_in_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "very-secret-key")
    variables = {"MY_TOKEN": "not for others", "PLAIN": "shown"}
    job = Job(
        "x",
        command=("python", "train.py", "--token", TOKEN),
        environment=Environment(variables=variables),
        secrets=("WANDB_API_KEY",),
    )
    run = a_run("x", job=job, status=ended("failed", evidence=f"denied: {TOKEN} very-secret-key not for others"))
    write_events(run, [{"t": 1e9, "type": "flag", "name": "x", "message": f"{TOKEN} very-secret-key"}])
    (places.run_folder(run.run_id) / "log").write_text(f"login {TOKEN}\nnot for others very-secret-key\n")
    text = write([run], tmp_path / "page.html").path.read_text("utf-8")
    assert not [secret for secret in (TOKEN, "very-secret-key", "not for others") if secret in text]
    assert "shown" in text and "(hidden)" in text and "[redacted]" in text


ODD: list[Any] = [
    None,
    True,
    -1,
    1e308,
    float("nan"),
    "",
    "\x1b[31m",
    [],
    {},
    [{}],
    {"a": {"b": []}},
    "x" * 5000,
    {"\ud800": "\ud800"},
]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_box_left_is_a_page(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)

    def odd(depth: int = 0) -> Any:
        if depth < 3 and dice.random() < 0.5:
            return (
                [odd(depth + 1) for _ in range(2)] if dice.random() < 0.5 else {str(dice.choice(ODD)): odd(depth + 1)}
            )
        return dice.choice(ODD)

    run = a_run("odd", status=dice.choice([None, ended(), ended("lost", evidence="x", cause="folder_deleted")]))
    names = ("libraries", "hardware", "base_model", "parameters", "batch", "memory", "code", "data")
    record = {name: odd() for name in names}
    record["data"] = [{"path": odd(), "bytes": odd(), "rows": odd()}, {"side": odd(), **{str(odd()): odd()}}, odd()]
    write_output(run, "training_metadata.json", dice.choice([record, odd(), "{torn"]))
    write_output(run, "models/best/manifest.json", dice.choice([{"files": [odd()]}, odd()]))
    write_output(run, "models/best/metrics.json", dice.choice([{"loss": odd(), "step": odd()}, odd(), "torn"]))
    write_output(
        run, "reports/evaluation.json", {"held_out": {"base": odd(), "tuned": {"loss": odd()}}, "generation": odd()}
    )
    write_output(
        run,
        "reports/answers.jsonl",
        dice.choice(["torn", json.dumps({"prompt": odd(), "base": odd()}) + "\n" + json.dumps(odd())]),
    )
    folder = places.run_folder(run.run_id)
    (folder / "log").write_bytes(dice.randbytes(dice.choice([0, 10, 200_000])))
    (folder / "events.jsonl").write_text(
        "".join(json.dumps({"t": 1e9, "type": "step", "step": 1, "loss": odd()}) + "\n" for _ in range(9))
    )
    (folder / "smoke-test.json").write_text(json.dumps(dice.choice([{"models": odd()}, odd()])))
    assert "The same again" in shown(write([run], tmp_path / "page.html").path)


def test_the_page_is_written_whole_or_not_at_all_and_that_is_a_warning(tmp_path: Path) -> None:
    run, report = report_runs.a_good_run(), Warned()
    own_place(run).mkdir()  # nothing can take this name now
    leave_page(run, report)
    assert len(report.warnings) == 1 and run.run_id in report.warnings[0]
    assert not [each for each in own_place(run).parent.iterdir() if each.name.startswith(".report")]


def test_a_run_is_behind_until_its_end_and_its_whole_log_are_here() -> None:
    run = report_runs.a_good_run()
    assert not is_behind(run) and run.status is not None
    run.status = ended(log_size=10_000)
    assert is_behind(run)
    run.status = ended()
    write_events(run, report_runs.training(10))
    assert is_behind(run)
    run.launched = run.attempted = False
    assert not is_behind(run)


def test_a_box_that_cannot_be_reached_is_said_in_the_page() -> None:
    run, report = report_runs.a_failed_run(), Warned()
    run.status, run.host = None, "root@127.0.0.1:1"
    written = report_of([run], report)
    assert written.path == own_place(run) and len(written.notes) == 1
    assert "this is what was here" in shown(written.path) and report.warnings == list(written.notes)


def test_the_command_writes_where_it_is_told(tmp_path: Path) -> None:
    run = report_runs.a_good_run()
    done = CliRunner().invoke(gpurun, ["report", "brie", "-o", str(tmp_path / "here.html"), "--json"])
    document = json.loads(done.stdout)
    assert document == {
        "path": str(tmp_path / "here.html"),
        "bytes": (tmp_path / "here.html").stat().st_size,
        "notes": [],
    }
    done = CliRunner().invoke(gpurun, ["report"])
    assert done.stdout.startswith(f"{own_place(run)} (")


def series(page: Path) -> list[dict[str, Any]]:
    """The lines of the first chart."""
    data = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))[0]
    found: list[dict[str, Any]] = json.loads(data)["charts"][0]["series"]
    return found


def test_several_runs_are_told_side_by_side(tmp_path: Path) -> None:
    page = write(report_runs.a_sweep(30), tmp_path / "page.html").path
    text = shown(page)
    for wanted in (
        "mayors: sweep 3fa9c210",
        "20 succeeded",
        "Together they cost 84.00",
        "optimizer.learning_rate",
        "validation: loss",
        "5 of 5",
    ):
        assert wanted in text, wanted
    assert len(series(page)) == 20 + 4
    assert [one["label"] for one in series(page) if "low" in one] == [
        f"mayors-learning-rate-{rate}-epochs-{epochs} (mean of 5)" for rate in ("0.0001", "0.0003") for epochs in (1, 3)
    ]
    assert re.findall(r'class="best">([^<]*)<', page.read_text("utf-8"))  # the recipe says which way the loss is better


def test_runs_without_repeats_have_a_line_each_and_a_label_that_tells_them_apart(tmp_path: Path) -> None:
    page = write(report_runs.a_sweep(30)[::5], tmp_path / "page.html").path
    assert [one["label"] for one in series(page)] == [
        f"epochs {epochs}, learning_rate {rate}" for rate in ("0.0001", "0.0003") for epochs in (1, 3)
    ]
    assert "Means over seeds" not in shown(page)


@pytest.mark.parametrize("seed", range(10))
def test_runs_of_all_kinds_share_a_page(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    kinds = [
        report_runs.a_good_run,
        report_runs.a_failed_run,
        lambda: a_run("never", number=7),
        lambda: a_run("other", number=8),
    ]
    runs = [make() for make in dice.sample(kinds, dice.randrange(2, 5))]
    text = shown(write(runs, tmp_path / "page.html").path)
    assert all(run.run_id in text for run in runs)


def test_a_sweep_by_its_name_is_written_where_the_command_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = report_runs.a_sweep(5)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(gpurun, ["report", "3fa9c210", "--json"])
    assert json.loads(done.stdout)["path"] == str(tmp_path / "report-3fa9c210.html"), done.output
    assert all(run.run_id in shown(tmp_path / "report-3fa9c210.html") for run in runs)
