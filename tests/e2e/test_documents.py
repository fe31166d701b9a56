"""Every command with ``--json`` prints the document that docs/json.md promises: no field less, no field more, each of its type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote_payload.publish.report import FileReport, LeftOut, PublishReport
from remote_payload.recipes.evaluated import Column, Confusion, Evaluation
from remote_payload.settings.predict import PredictSettings
from runner import store
from runner.cli.group import COMMANDS
from runner.domain import places
from runner.domain.evaluation.compare import Difference
from runner.domain.evaluation.regression import Worse
from runner.domain.job import Job
from runner.domain.run import Refusal, Run
from runner.local_model.compare import Comparison
from runner.local_model.messages import Labelled, PredictResult
from runner.local_model.report import SmokeReport
from runner.workflow import publish
from runner.workflow.dealing import several as several  # before hosts are replaced in what it imports
from runner.workflow.exporting import export
from runner.workflow.exporting.export import Export
from runner.workflow.inference import evaluate, predict, smoke, targets
from runner.workflow.inference.evaluate import Compared, Outcome, Results
from runner.workflow.inference.predict import Prediction
from runner.workflow.inference.targets import TargetHere
from runner.workflow.publish import Published
from runner.workflow.scripting import beside
from runner.workflow.tensorboard import serve
from tests.support.document_types import TYPES, differences
from tests.support.recorded import Recording, command, record, sandbox, told
from tests.support.replay import Said

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text("utf-8")
TABLE = PAGE.partition("## The commands")[2].partition("\n## ")[0]
PROMISED = {
    words: set(re.findall(r"\[(\w+)\]", kinds))
    for words, kinds in re.findall(r"^\| `([^`]+)` \| (.*) \|$", TABLE, re.M)
}
FILE = "job.yaml"
OTHER = "other-20260101-000000-0000"  # a run of another machine
TESTED = SmokeReport(
    folder=Path("models/best"), kind="classifier", device="cpu", device_name="cpu", dtype="float32", torch="2.9.0", load_seconds=0.5,
    samples=2, samples_per_second=20.0, tokens_per_second=None, peak_memory=1 << 20, counts={"legal": 2}, texts=(),
    comparison=Comparison(2, float("nan"), 1, 0.002, 1, 2, ("row 1 differs",)), not_opened=("a.pkl",),
    labelled=(Labelled("legal", 0.75),),
)  # fmt: skip

EXPORTED = Export("merged", Path("x/merged"), "float32", 9, 2, True, Comparison(2, 0.0, 1, 0.002, 2, 2, ()))
PREDICTED = Prediction(
    "best", "classifier", "float32", PredictSettings([FILE], "x.csv"), PredictResult("cpu", 2, 1, 1, {"legal": 1}, 2, 0.5, 9, ("row 1",))
)  # fmt: skip
REPORT = PublishReport(
    "me/best", True, "c0ffee", (FileReport("README.md", 9, "new"),), ("old.bin",), (LeftOut("a.pkl", "a pickle"),), None, "mit", ("so",)
)  # fmt: skip
COLUMN = Column(
    "best", "best", False, "", "classifier", "cpu", "float32", "examples/01-best.jsonl", {"accuracy": 0.5}, {"one": {"loss": 1.0}},
    Confusion(["a", "b"], [[1, 1], [0, 0]]),
)  # fmt: skip
WORSE = Outcome(
    Results(Path("x"), Evaluation("d.jsonl", "a" * 64, 2, [COLUMN])),
    [Compared("best", "old", [Difference("accuracy", 2, -0.5, -1.0, 0.0, ("d:1",), ("d:2",))])],
    "old",
    [Worse("best", "old", "accuracy", 0.5, 1.0, 0.1)],
)

# The entry of the page, the words that are typed, the document and the exit code. In this order, on one laptop.
CASES = [
    ("init", ["init", "mine"], "Init", 0),
    ("validate", ["validate", FILE, "wrong.yaml"], "Validate", 2),
    ("check", ["check", FILE, "--host", "box"], "Check", 0),
    ("check", ["check", "recipe.yaml", "--host", "box"], "Check", 0),  # it has a forecast
    ("check", ["check", FILE, "--host", "box", "--host", "other"], "CheckHosts", 0),
    ("submit --dry-run", ["submit", FILE, "--host", "box", "--dry-run"], "DryRun", 0),
    ("submit --dry-run", ["submit", FILE, "--host", "box", "--host", "other", "--dry-run"], "DryRun", 0),
    ("list", ["list"], "List", 0),
    ("list --host", ["list", "--host", "box"], "ListOfHost", 0),
    ("sweep", ["sweep"], "Sweep", 0),
    ("compare", ["compare", "{run}", "old", "--all"], "Compare", 0),
    ("tensorboard", ["tensorboard"], "TensorBoard", 0),
    ("status", ["status"], "RunNow", 0),
    ("logs", ["logs"], "Logs", 0),
    ("wait", ["wait"], "Run", 0),
    ("watch", ["watch", "--once"], "Watch", 0),
    ("checkpoints", ["checkpoints"], "Checkpoints", 0),
    ("sample", ["sample", "--prompt", "a", "--on-box"], "Sample", 0),
    ("fetch", ["fetch", "--into", "../target"], "Fetch", 0),
    ("report", ["report"], "Report", 0),
    ("keep", ["keep"], "Keep", 0),
    ("smoke-test", ["smoke-test"], "SmokeTest", 6),
    ("export", ["export", "--merged"], "Export", 0),
    ("evaluate", ["evaluate", "best", "--data", FILE], "Evaluate", 6),
    ("predict", ["predict", "best", "--input", FILE, "--output", "x.csv"], "Predict", 0),
    ("publish", ["publish", "{run}", "me/best", "--on-box"], "Publish", 0),
    ("done", ["done", "--leave-behind"], "Done", 0),
    ("fetch", ["fetch", "{sweep}"], "Follow", 0),
    ("done", ["done", "{sweep}", "--leave-behind"], "DoneAll", 0),
    ("clean", ["clean", "{sweep}", "--dry-run"], "CleanAll", 0),
    ("resume --all", ["resume", "--all", "{sweep}"], "ResumeSweep", 0),
    ("resume", ["resume"], "Run", 0),
    ("submit", ["submit", FILE, "--host", "box"], "Submit", 0),
    ("submit --follow", ["submit", FILE, "--host", "box", "--follow"], "Follow", 0),
    ("submit --keep", ["submit", FILE, "--host", "box", "--keep"], "Keep", 0),
    ("stop", ["stop"], "Stop", 0),
    ("stop", ["stop", "--all"], "StopAll", 0),
    ("clean", ["clean", "--host", "box", "--dry-run", "--experiment", "tries"], "Clean", 0),
    ("clean", ["clean", "--not-started", "--yes"], "CleanRecords", 0),
    ("hosts", ["hosts"], "Hosts", 0),
    ("hosts move", ["hosts", "move", "local", "other"], "Moved", 0),
    ("resume --all", ["resume", "--all", "--host", "other"], "ResumeAll", 0),
    ("hosts set", ["hosts", "set", "box", "--volume", "/workspace"], "HostSet", 0),
    ("hosts use-gpu", ["hosts", "use-gpu", "other", "0"], "UsedAgain", 0),
    ("hosts default", ["hosts", "default", "box"], "DefaultHost", 0),
    ("skill", ["skill", "skills"], "Skill", 0),
    ("ssh", ["ssh"], "Ssh", 0),
    ("exec", ["exec", "--json", "--", "true"], "Exec", 0),
    ("hosts forget", ["hosts", "forget", "box"], "Forgotten", 0),
]
WRONG = [
    *([name, "--no-such-option"] for name in COMMANDS),
    ["no-such-command"],
    ["submit"],
    ["check", "job.yaml"],
    ["hosts", "forget"],
    ["status", "no-such-run"],
    ["validate"],
]


@dataclass
class Printed:
    """What one command printed."""

    entry: str
    words: list[str]
    document: str
    expected: int
    code: int
    out: str


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with pytest.MonkeyPatch.context() as patch:
        made = record(tmp_path_factory.mktemp("recording"), patch)
    yield made


@pytest.fixture(scope="module")
def printed(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Printed]]:
    with pytest.MonkeyPatch.context() as patch:
        folder = sandbox(recording, tmp_path_factory.mktemp("laptop"), patch)
        patch.chdir(folder / "project")
        leave_no_list_empty(recording)
        # stand_in for a model, which needs torch; tests/e2e/test_hub_line.py tests a real one
        patch.setattr(smoke, "smoke_test", lambda *args, **options: [TESTED])
        patch.setattr(serve, "show", lambda runs, report, answers: answers("http://127.0.0.1:6006/"))
        # stand_in for OpenSSH and the box behind it; tests/e2e/observing/test_scripts.py has both
        patch.setattr(beside, "session_argv", lambda *args, **options: ["true"])
        trained = TargetHere("best", Path("x/best"), store.load(recording.run_id))
        patch.setattr(targets, "trained_target", lambda named: trained)
        patch.setattr(export, "export", lambda *args, **options: [EXPORTED])
        patch.setattr(evaluate, "evaluate", lambda *args: WORSE)
        patch.setattr(predict, "predict", lambda *args, **options: PREDICTED)
        patch.setattr(
            publish, "publish_on_box", lambda meant, *args, **options: Published(meant.run, "models/best", "x", REPORT)
        )
        found = []
        for entry, words, document, expected in CASES:
            change = with_another_run if entry == "list --host" else lambda verb, frames: frames
            with told(recording, change, patch):
                ask_the_box_again()
                names = {"sweep": submission(recording), "run": recording.run_id}
                code, out, _ = command(*(word.format(**names) for word in words), "--json")
            found.append(Printed(entry, words, document, expected, code, out))
        yield found


def leave_no_list_empty(recording: Recording) -> None:
    """A run of an experiment, one that was not started, a damaged record, a wrong job file, a secret."""
    store.update(store.load(recording.run_id), experiment="tries")
    why = Refusal("box", "no disk", "another box")
    store.create(Run("old-20200101-000000-0000", Job("old"), "box", 1577836800.0, not_started=why))
    damaged = places.run_folder("bad-20200101-000001-0001")
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    Path("wrong.yaml").write_text("nmae: a\n")
    Path("recipe.yaml").write_text("{name: a, recipe: pretrain, data: [corpus], settings: {corpus: corpus}}\n")
    Path(".env").write_text("TOKEN=1\n")


def submission(recording: Recording) -> str:
    """The id of the submission of the run that was recorded."""
    return store.load(recording.run_id).submission or ""


def with_another_run(verb: str, frames: list[Said]) -> list[Said]:
    """The box's answers, with a run that another machine submitted."""
    kind, body = frames[-1]
    answer = json.loads(body)
    assert verb == "status"
    answer["runs"].append({**answer["runs"][0], "run_id": OTHER})
    return [*frames[:-1], (kind, json.dumps(answer).encode())]


def ask_the_box_again() -> None:
    """The runs as they were before their ends were seen."""
    for run in store.load_all()[0]:
        store.update(run, status=None, status_at=None)


def test_what_each_command_prints_is_its_document(printed: list[Printed]) -> None:
    wrong = []
    for each in printed:
        found = differences(json.loads(each.out), TYPES[each.document], set())
        if found or each.code != each.expected or each.document not in PROMISED[each.entry]:
            wrong.append((each.words, each.code, found, each.out))
    assert not wrong, "\n".join(map(str, wrong))


def test_every_command_and_every_document_was_printed(printed: list[Printed]) -> None:
    seen: set[str] = set()
    for each in printed:
        differences(json.loads(each.out), TYPES[each.document], seen)
    assert {each.entry for each in printed} == set(PROMISED)
    assert {each.entry.split()[0] for each in printed} == set(COMMANDS)
    assert TYPES.keys() - seen == {
        "Failure",
        "Error",
        "Fetched",
    }  # errors are below; Fetch and FollowedFetch have all of Fetched


def test_a_run_that_is_listed_on_a_box_has_the_same_fields_whoever_submitted_it(printed: list[Printed]) -> None:
    (document,) = [json.loads(each.out) for each in printed if each.document == "ListOfHost"]
    own, other = document["runs"]
    assert own["job_name"] == "probe" and own["seen_at"] and own["cost"] is not None
    assert other["run_id"] == OTHER and other["job_name"] is None and other["status"]["outcome"] == "succeeded"
    assert other["elapsed_seconds"] == own["elapsed_seconds"] and other["seen_at"] == own["seen_at"]


def test_done_prints_the_record_that_it_has_changed(printed: list[Printed]) -> None:
    (document,) = [json.loads(each.out) for each in printed if each.document == "Done"]
    assert document["safe_to_destroy"] and document["done"] and document["status"]["outcome"] == "succeeded"


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_an_error_is_a_document_too(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    code, out, err = command(*words, "--json")
    document = json.loads(out)
    assert not differences(document, TYPES["Failure"], set()), out
    assert (code, document["error"]["exit_code"], err) == (2, 2, "") and document["error"]["message"]
    assert document["error"]["hint"]
