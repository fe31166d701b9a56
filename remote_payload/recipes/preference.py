"""Recipe ``preference``: an adapter is trained further on pairs of a better and a worse answer (DPO).

The reference is the model that training starts from, this adapter included: DPO measures the distance from there, and what
the adapter had learnt before does not count as gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from remote_payload.settings.preference import PreferenceSettings
from remote_payload.train.data.chat import Format, end_tokens, prompt_ids
from remote_payload.train.data.facts import DataFact, Side
from remote_payload.train.data.records import Record, find_files, read_all
from remote_payload.train.download import BaseModel, local_model
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.answers import Questions, Report
from remote_payload.train.loop.flops import flops_of_documents
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.overlap import flag_repetitions
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.causal_files import load_adapter, load_network, load_tokenizer
from remote_payload.train.model.greedy_decoding import SmokePrompt
from remote_payload.train.model.model_facts import ModelFacts, Prompting
from remote_payload.train.model.precision import checkpoint_activations, resolve_precision
from remote_payload.train.model.start_adapter import read_start
from remote_payload.train.results.causal_results import CausalResults
from remote_payload.train.results.publish import publish
from remote_payload.train.run import Run, launch
from remote_payload.train.state import rng
from remote_payload.train.tasks.preferences import (
    Pair,
    PairLoss,
    PreferenceTask,
    answer_log_probabilities,
    encode_pairs,
)


def main(run: Run[PreferenceSettings]) -> None:
    settings, world = run.settings, run.world
    compute = resolve_precision(settings.precision, world.device)

    with run.phase("data"):
        records, facts = read(settings)
        base = local_model(run, settings.model, settings.revision)
        start = read_start(run, settings.adapter, base)
        form = format_of(start.about, settings)
        tokenizer = load_tokenizer(
            start.tokenizer_source(base),
            chat=form.chat,
            chat_template=settings.chat_template,
            pad_token=settings.pad_token,
        )
        pairs = {name: encode(run, name, side, tokenizer, form, facts) for name, side in records.items()}
        texts = {
            name: [f"{pair.question.prompt} {pair.question.answer}" for pair in side] for name, side in pairs.items()
        }
        flag_repetitions(run, **texts)

    with run.phase("model"):
        rng.seed_everything(settings.seed)
        model = build_model(base, settings, compute).to(world.device)
        learn = partial(loss, beta=settings.beta)
        task = PreferenceTask(settings, world, pairs["train"], pairs.get("validation", []), compute, learn)
        model.eval()  # the reference is the adapter as it comes: one pass over the pairs now, no second model later
        task.pairs = task.with_reference(model, task.pairs)
        task.held_out = task.with_reference(model, task.held_out) or task.pairs

    questions = ask_about(task.held_out, tokenizer, form, settings)
    prompting = about(start.about, form, questions.end_tokens, settings)
    results = CausalResults(run, model, tokenizer, base, compute, prompting, facts, start=settings.adapter)
    answers = [answer for pair in task.pairs for answer in (pair.chosen, pair.rejected)]
    prompts = [pair.question.prompt for pair in task.held_out[: settings.smoke_rows]]
    smoke: list[SmokePrompt] = [{"prompt": prompt, "add_special_tokens": not form.chat} for prompt in prompts]

    def report(micro_batch_rows: int) -> Report:
        return results.report(task, task.held_out, questions, settings.generation, micro_batch_rows)

    outcome = train(
        run, model, task,
        flops_per_token=flops_of_documents(model, answers),
        on_best=results.keep_best,
        on_stop=lambda outcome, clock: results.finish_stopped(
            outcome, clock, smoke, questions.end_tokens, lambda: report(outcome.progress.micro_batch_rows)
        ),
        extras=results.describe_checkpoint,
    )  # fmt: skip

    with run.phase("report"):
        results.restore_best(outcome.progress)
        with results.unless_stopped(outcome, smoke, questions.end_tokens):
            found = report(outcome.progress.micro_batch_rows)
        results.finish(outcome, found.numbers("tuned"), smoke, questions.end_tokens, found)
    publish(run)


def loss(model: nn.Module, batch: MicroBatch, beta: float) -> PairLoss:
    """The DPO loss (https://arxiv.org/abs/2305.18290) of a micro-batch of pairs.

        -log sigmoid(beta * ((log p(chosen) - log p(rejected)) - (log r(chosen) - log r(rejected))))

    p is the model, r the reference; log p and log r are summed over an answer's tokens.
    """
    losses, rewards = dpo_loss(answer_log_probabilities(model, batch), batch.tensors["reference"], beta)
    return PairLoss(losses.sum(), losses.new_full((), len(losses)), losses, rewards)


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Losses ``[pairs]`` and rewards ``[pairs, 2]`` from log-probabilities ``[pairs, 2]`` of chosen and rejected."""
    rewards = beta * (policy - reference)
    return -nn.functional.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


def format_of(trained: ModelFacts, settings: PreferenceSettings) -> Format:
    """How prompts are written: as in the training of the adapter, where gpurun trained it, unless the settings say otherwise."""
    system = settings.system_prompt if settings.system_prompt is not None else trained.get("system_prompt")
    template = settings.prompt_template or (None if trained.get("chat", True) else trained.get("prompt_template"))
    return Format(prompt_template=template, completion_field="completion", system_prompt=system)


def about(trained: ModelFacts, form: Format, ends: list[int], settings: PreferenceSettings) -> Prompting:
    """How the model is to be asked, for gpurun.json. Its longest examples were those of the adapter's own training, where that is known."""
    return {
        "max_length": trained.get("max_length", settings.max_length),
        "chat": form.chat,
        "prompt_template": form.prompt_template,
        "system_prompt": form.system_prompt,
        "end_tokens": ends,
    }


def read(settings: PreferenceSettings) -> tuple[dict[str, list[Record]], list[DataFact]]:
    """The records of each side that the settings name, and the facts of their files. InputError when there are none."""
    sides: dict[str, list[Record]] = {}
    facts: list[DataFact] = []
    for name in ("train", "validation"):
        if place := getattr(settings, name):
            sides[name], files = read_all(find_files(place, name))
            facts += files
            if not sides[name]:
                raise InputError(f"settings.{name}: {place!r} holds no pairs")
    return sides, facts


def encode(
    run: Run[PreferenceSettings],
    name: str,
    records: list[Record],
    tokenizer: PreTrainedTokenizerBase,
    form: Format,
    facts: list[DataFact],
) -> list[Pair]:
    """The side's pairs as tokens; the log has how many were left out; ``facts`` gets their counts."""
    pairs, left_out = encode_pairs(records, tokenizer, form, run.settings)
    tokens, where = sum(map(len, pairs)), f" ({', '.join(left_out[:5])})" if left_out else ""
    facts.append(Side(name, {"pairs": len(pairs), "tokens": tokens, "left_out": len(left_out)}))
    run.log(f"{name}: {len(pairs):,} pairs, {tokens:,} tokens; {len(left_out):,} left out{where}")
    return pairs


def build_model(base: BaseModel, settings: PreferenceSettings, compute: torch.dtype) -> CausalLoss:
    """The frozen base in the compute dtype, with the adapter trainable."""
    network: PeftModel = load_adapter(load_network(base.path, dtype=compute), settings.adapter, trainable=True)
    if settings.batch.activation_checkpointing:
        checkpoint_activations(network)
    return CausalLoss(network)


def ask_about(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, form: Format, settings: PreferenceSettings
) -> Questions:
    """The prompts of the pairs, which the trained model answers."""
    examples = [pair.question for pair in pairs[: settings.generation.examples]]
    prompts = [prompt_ids(tokenizer, example.prompt, add_special_tokens=not form.chat) for example in examples]
    return Questions(examples, prompts, end_tokens(tokenizer, form))


if __name__ == "__main__":
    launch("preference", main)
