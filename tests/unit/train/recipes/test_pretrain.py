"""The recipe of S3, end to end on a small corpus: tokenizer, rows, a GPT-2 from nothing."""

import json
import math
import shutil

import pytest

from remote_payload.train.errors import InputError
from remote_payload.train.model.causal_files import load_causal
from remote_payload.train.state.checkpoint import checkpoints_in
from tests.support.models.recipe_process import run_recipe, run_recipe_here, succeeded

STREETS = ("Strand", "Cheapside", "Fleet Street", "Piccadilly", "Whitehall")
TEXT = "\n\n".join(
    f"In the year {year} the mayor walked along {street} and counted {year % 7} ships."
    for year in range(1700, 1800)
    for street in STREETS
)


def job(**settings) -> dict:
    plan = {
        "corpus": "data/corpus.txt",
        "vocabulary": 400,
        "max_length": 32,
        "validation_share": 0.1,
        "model": {"layers": 2, "width": 32, "heads": 2},
        "max_steps": 24,
        "batch": {"size": 8, "micro": 4},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.1, "beta2": 0.95},
        "schedule": {"warmup": 2},
        "checkpoint": {"every_steps": 6, "keep": 3},
        "evaluation": {"every_steps": 12},
        "prompts": ["In the year 1750"],
        "smoke_rows": 2,
    }
    return {"name": "london", "recipe": "pretrain", "settings": {**plan, **settings}}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "data").mkdir()
    (folder / "data" / "corpus.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(code, runs):
    return succeeded(run_recipe(job(), code, runs / "alone"))


def test_the_model_learns_and_the_best_is_complete(run):
    assert run.losses[-1] < run.losses[0] - 1.0
    network, tokenizer = load_causal(run.outputs / "models" / "best")
    assert network.config.model_type == "gpt2" and network.config.vocab_size == len(tokenizer) <= 400
    assert tokenizer.decode(tokenizer("Cheapside")["input_ids"]) == "Cheapside"
    about = json.loads((run.outputs / "models" / "best" / "gpurun.json").read_text())
    assert about["base"] is None and about["kind"] == "causal_lm"


def test_loss_perplexity_and_checkpoints_are_reported(run):
    last = run.of_type("eval")[-1]["metrics"]
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))
    assert [found.step for found in checkpoints_in(run.outputs / "checkpoints", hashes=True)] == [12, 18, 24]
    assert (run.outputs / "logs" / "alone").is_dir()
    assert json.loads((run.outputs / "reports" / "samples.jsonl").read_text())["prompt"] == "In the year 1750"


def test_the_card_and_the_record_have_the_numbers_of_the_run(run):
    card = (run.outputs / "models" / "best" / "README.md").read_text()
    record = json.loads((run.outputs / "training_metadata.json").read_text())
    assert "trained from nothing" in card and "`data/corpus.txt`: " in card and " bytes, sha256" in card
    assert record["data"][0]["path"] == "data/corpus.txt" and record["data"][1]["side"] == "train"
    assert record["batch"]["effective"] == 8 and record["base_model"] is None
    assert record["results"]["best"]["metrics"]["perplexity"] > 1
    assert record["memory"]["predicted"]["total"] > 0


def test_two_processes_learn_what_one_does_from_the_rows_that_are_there(run, code, runs):
    two = succeeded(run_recipe(job(), code, runs / "two", processes=2))
    assert two.losses == pytest.approx(run.losses, abs=2e-5)
    assert "rows cached in" in two.log and "training a tokenizer" not in two.log


def test_going_on_from_a_checkpoint_gives_the_same_losses(run, code, runs):
    shutil.copytree(run.outputs / "checkpoints", runs / "again" / "outputs" / "checkpoints")
    again = run_recipe_here(job(), code, runs / "again", resume="step-000012")
    assert again.losses == run.losses[12:]
    latest = run_recipe_here(job(), code, runs / "again", resume="auto")
    assert latest.losses == again.losses


def test_a_changed_corpus_is_noticed_and_said(run, code, runs, tmp_path):
    changed = tmp_path / "code"
    (changed / "data").mkdir(parents=True)
    (changed / "data" / "corpus.txt").write_text(TEXT.replace("ships", "boats"))
    shutil.copytree(runs / "cache", tmp_path / "runs" / "cache")
    with pytest.raises(InputError, match=r"settings\.tokens is cached, but the tokenizer in .* from another corpus"):
        run_recipe_here(job(tokens="cached"), changed, tmp_path / "runs" / "cached")
    anew = run_recipe_here(job(max_steps=1), changed, tmp_path / "runs" / "auto")
    assert "was made from another corpus" in anew.log and "rows fresh in" in anew.log


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"width": 30, "heads": 4}}, r"settings\.model\.width: 30 is not a multiple of 4 heads"),
        ({"evaluation": {"metric": "bleu"}}, r"settings\.evaluation\.metric: there is no bleu"),
        ({"expected_loss": [[2, 3.0]]}, r"settings\.expected_loss: \[2.*\] is not a share"),
        ({"corpus": "data/none.txt"}, r"settings\.corpus: 'data/none\.txt' matches no"),
        ({"max_length": 30_000}, r"settings\.validation_share: \d+ tokens held out|settings\.corpus: \d+ tokens"),
        ({"batch": {"size": 10_000}}, r"settings\.batch\.size: 10000 rows, but the data is \d+"),
    ],
)
def test_bad_input_names_the_setting(code, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        run_recipe_here(job(**settings), code, tmp_path / "runs" / "run")


def test_a_loss_behind_its_schedule_raises_a_flag(code, runs):
    settings = {"expected_loss": [[0.5, 0.01], [1.0, 20.0]], "max_steps": 4, "evaluation": {"every_steps": 1}}
    run = run_recipe_here(job(**settings), code, runs / "behind")
    flags = run.of_type("flag")
    assert [flag["name"] for flag in flags] == ["loss_behind_schedule"] * 2
    assert "after 50% of the run, expected 0.01 at most" in flags[0]["message"]
