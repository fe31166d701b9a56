"""The recipe of S2, end to end in a process of its own on a tiny Olmo 2."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from remote_payload.train.errors import InputError
from remote_payload.train.model.causal_files import load_causal, load_network
from remote_payload.train.results.checkpoint_model import load_any
from remote_payload.train.state.checkpoint import checkpoints_in
from tests.support.models.recipe_process import run_recipe, run_recipe_here, succeeded
from tests.support.models.tiny_models import CORPUS, save_tiny_model

DOCUMENTS = [f"The mayor of town {number} was called {name}." for number in range(12) for name in ("Brown", "Green")]
TEMPLATE = {"prompt": "Who was the mayor of town {town}? ", "completion": "{name}"}


def dataset() -> dict:
    def question(town):
        return {
            "features": {"fields": {"town": town, "name": "Brown"}},
            "few_shot_example_features": [{"fields": {"town": 11, "name": "Green"}}],
            "fact_template": TEMPLATE,
        }

    return {
        "document_dataset": {"docs": [{"prompt": "", "completion": text} for text in [*DOCUMENTS, *CORPUS]]},
        "eval_dataset_builders": {
            f"set_{number}": {
                "eval_points": [question(number), question(number + 1)],
                "metrics": [{"function_name": "accuracy_and_loss"}, {"function_name": "ranks"}],
            }
            for number in range(5)
        },
    }


def job(**settings) -> dict:
    plan = {
        "model": "data/olmo",
        "dataset": "data/dataset.json",
        "max_length": 64,
        "epochs": 1,
        "batch": {"size": 2, "micro": 1},
        "optimizer": {"learning_rate": 1e-3, "weight_decay": 0},
        "schedule": {"warmup": 0.1},
        "checkpoint": {"every_epochs": 0.2, "at_start": True, "keep": None, "resumable": 1},
        "evaluation": {"every_epochs": 0.2, "at_start": True},
        "prompts": ["The mayor"],
        "smoke_rows": 2,
    }
    return {"name": "mayors", "recipe": "finetune", "settings": {**plan, **settings}}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    save_tiny_model("olmo2", folder / "data" / "olmo", chat=False)
    (folder / "data" / "dataset.json").write_text(json.dumps(dataset()))
    return folder


@pytest.fixture(scope="module")
def run(code, tmp_path_factory):
    return succeeded(run_recipe(job(), code, tmp_path_factory.mktemp("runs") / "run"))


def test_every_set_is_measured_at_step_0_and_at_every_fraction_of_an_epoch(run):
    history = json.loads((run.outputs / "reports" / "experiment_log.json").read_text())
    assert history["evaluations"][0]["step"] == 0
    assert len(history["evaluations"]) == 6
    assert history["evaluations"][-1]["epoch"] == 1.0
    for entry in history["evaluations"]:
        assert list(entry["sets"]) == [f"set_{number}" for number in range(5)]
        assert set(entry["sets"]["set_0"]) == {"loss", "accuracy", "token_accuracy"}
    assert history["dataset"]["rows"] == len(DOCUMENTS) + len(CORPUS) and history["settings"]["max_length"] == 64


def test_each_evaluation_of_each_set_is_an_event_and_the_whole_comes_last(run):
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    measured = [(event["step"], event["name"], event["metrics"]) for event in events if event["type"] == "eval"]
    history = json.loads((run.outputs / "reports" / "experiment_log.json").read_text())["evaluations"]
    names = [*(f"set_{number}" for number in range(5)), "validation"]
    assert [name for _, name, _ in measured] == names * len(history)
    for entry in history:
        for name, metrics in entry["sets"].items():
            assert (entry["step"], name, metrics) in measured


def test_what_is_learnt_shows_in_the_sets(run):
    first, *_, last = json.loads((run.outputs / "reports" / "experiment_log.json").read_text())["evaluations"]
    assert last["sets"]["set_0"]["loss"] < first["sets"]["set_0"]["loss"] - 0.2


def test_there_are_seven_checkpoints_less_the_final_that_coincides_and_only_the_last_can_be_resumed_from(run):
    found = checkpoints_in(run.outputs / "checkpoints", hashes=True)
    assert len(found) == 6 and found[0].step == 0
    assert [checkpoint.resumable for checkpoint in found] == [False] * 5 + [True]


def test_the_log_is_kept_as_a_file_and_says_what_is_left_out(run):
    log = (run.outputs / "reports" / "experiment.log").read_text()
    assert "asks for ranks in 5 sets, which is not computed here" in run.log
    assert "best loss so far" in log and "saved checkpoints/step-" in log


def test_a_checkpoint_is_a_model_that_can_be_tried(run, code):
    newest, *_ = checkpoints_in(run.outputs / "checkpoints")[::-1]
    network, tokenizer = load_any(newest.path)
    best, _ = load_causal(run.outputs / "models" / "best")
    ids = torch.tensor([tokenizer("The mayor")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(network(ids).logits, best(ids).logits)
        start, _ = load_any(checkpoints_in(run.outputs / "checkpoints")[0].path)
        untrained = load_network(str(code / "data" / "olmo")).eval()
        assert torch.equal(start(ids).logits, untrained(ids).logits)


def test_the_card_and_the_record_have_the_numbers_of_the_run(run):
    record = json.loads((run.outputs / "training_metadata.json").read_text())
    assert [fact.get("side") for fact in record["data"]] == [None, "train", "evaluation"]
    assert record["data"][2] == {"side": "evaluation", "sets": 5, "questions": 10}
    assert record["base_model"]["id"] == "data/olmo"
    assert "full fine-tuning" in (run.outputs / "models" / "best" / "README.md").read_text()


def test_the_smoke_test_finds_what_it_needs(run):
    smoke = run.outputs / "models" / "best" / "smoke"
    assert {path.name for path in smoke.iterdir()} == {"inputs.jsonl", "expected.safetensors", "about.json"}
    assert (run.outputs / "reports" / "samples.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_a_run_that_goes_on_from_a_checkpoint_has_the_losses_of_one_that_never_stopped(code, tmp_path, weights):
    plan = job(checkpoint={"every_steps": 1, "keep": None}, weights=weights)
    whole = run_recipe_here(plan, code, tmp_path / "whole")
    shutil.copytree(whole.outputs / "checkpoints", tmp_path / "again" / "outputs" / "checkpoints")
    again = run_recipe_here(plan, code, tmp_path / "again", resume="step-000002")
    assert len(whole.losses) == 6
    assert again.losses == whole.losses[2:]


def test_a_checkpoint_that_is_not_there_lists_those_that_are(run, code, tmp_path):
    shutil.copytree(run.outputs / "checkpoints", tmp_path / "again" / "outputs" / "checkpoints")
    with pytest.raises(InputError, match=r"there is no checkpoint step-000077.*step-000006"):
        run_recipe_here(job(), code, tmp_path / "again", resume="step-000077")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation": {"metric": "f1"}}, "settings.evaluation.metric: there is no f1; there are loss, accuracy"),
        ({"shard": True}, "settings.shard: there is one process alone"),
        ({"dataset": "data/none.json"}, "data/none.json: no such file"),
        ({"max_lenght": 5}, r"settings.max_lenght: no such setting; did you mean max_length\?"),
    ],
)
def test_bad_input_is_one_line_before_the_model_is_loaded(code, tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr("remote_payload.recipes.finetune.load_network", None)
    with pytest.raises(InputError, match=message):
        run_recipe_here(job(**settings), code, tmp_path / "run")


def test_weights_in_bf16_are_trained_and_saved_as_such(code, tmp_path):
    run = run_recipe_here(job(weights="bf16", checkpoint={"every_epochs": 1}), code, tmp_path / "run")
    *_, newest = checkpoints_in(run.outputs / "checkpoints")
    weights = load_file(newest.path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert run.losses[-1] < run.losses[0]


def test_a_model_cut_over_two_ranks_learns_what_one_alone_does(run, code, tmp_path):
    cut = succeeded(run_recipe(job(shard=True), code, tmp_path / "run", processes=2))
    assert cut.losses == pytest.approx(run.losses, abs=2e-5)
    whole, _ = load_causal(run.outputs / "models" / "best")
    pieces, _ = load_causal(cut.outputs / "models" / "best")
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, pieces.state_dict()[name], atol=1e-4), name
