"""Recipe ``pretrain``: a tokenizer from the corpus, the corpus as rows of tokens, and a GPT-2 trained on them from scratch."""

from __future__ import annotations

import math

from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerBase

from remote_payload.settings.pretrain import PretrainSettings
from remote_payload.train.data.corpus import corpus_files
from remote_payload.train.data.facts import DataFact, DataFile, Side, describe_files
from remote_payload.train.data.tokenizer import load_tokenizer, prepare_tokenizer
from remote_payload.train.data.tokens import Source, Tokens, prepare_tokens
from remote_payload.train.download import local_model
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.continuations import write_continuations
from remote_payload.train.loop.flops import flops_per_token
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import CausalLoss, TokenLoss
from remote_payload.train.model.greedy_decoding import SmokePrompt
from remote_payload.train.model.model_facts import Prompting
from remote_payload.train.model.precision import checkpoint_activations, resolve_precision
from remote_payload.train.results.causal_results import CausalResults
from remote_payload.train.results.publish import publish
from remote_payload.train.run import Run, launch
from remote_payload.train.shared import cache_folder, main_rank_first
from remote_payload.train.state import rng
from remote_payload.train.state.progress import Progress
from remote_payload.train.tasks.rows import RowTask, TokenRows


def main(run: Run[PretrainSettings]) -> None:
    settings, world = run.settings, run.world
    compute = resolve_precision(settings.precision, world.device)

    with run.phase("data"):
        check_settings(settings)
        corpus = world.broadcast(describe_files(corpus_files(settings.corpus)) if world.main else None)
        tokenizer, tokens = prepare(run, corpus)
        describe(run, tokens)

    with run.phase("model"):
        rng.seed_everything(settings.seed)
        model = build_model(settings, tokenizer).to(world.device)
        run.log(f"GPT-2 of {sum(parameter.numel() for parameter in model.parameters()):,} parameters, from nothing")

    validation = TokenRows(tokens.validation)
    count = min(len(validation), settings.validation_rows or len(validation))

    def measure(model: nn.Module, micro_batch_rows: int) -> dict[str, float]:
        return task.measure_rows(model, validation, count, micro_batch_rows)

    task = RowTask(settings, world, TokenRows(tokens.train), compute, measure, loss)
    expected = ExpectedLoss(run, task.steps_per_epoch)
    ends = [tokenizer.eos_token_id]
    prompting: Prompting = {"max_length": settings.max_length, "chat": False, "end_tokens": ends}
    results = CausalResults(run, model, tokenizer, None, compute, prompting, facts(corpus, tokens))
    smoke = smoke_prompts(run, tokenizer, tokens)
    outcome = train(
        run, model, task,
        flops_per_token=flops_per_token(model.network, model.head, [settings.max_length], counted=settings.max_length - 1),
        on_evaluation=expected.compare,
        on_stop=lambda outcome, clock: results.finish_stopped(
            outcome, clock, smoke, ends, lambda: write_continuations(run, model.network, tokenizer, settings.prompts)
        ),
        extras=results.describe_checkpoint,
    )  # fmt: skip

    with run.phase("report"):
        results.restore_best(outcome.progress)
        write_continuations(run, model.network, tokenizer, settings.prompts)
        results.finish(outcome, None, smoke, ends)
    publish(run)


def loss(model: nn.Module, batch: MicroBatch) -> TokenLoss:
    """Cross-entropy of the next token, summed over all tokens but the first of each row.

    The model is a ``CausalLoss``; the batch is rows of one length, in which a token sees all those before it.
    """
    found: TokenLoss = model(**batch.tensors)
    return found


def check_settings(settings: PretrainSettings) -> None:
    """Raises InputError for settings that contradict each other."""
    if settings.model.width % settings.model.heads:
        raise InputError(
            f"settings.model.width: {settings.model.width} is not a multiple of {settings.model.heads} heads"
        )
    for pair in settings.expected_loss:
        if len(pair) != 2 or not 0 < pair[0] <= 1 or pair[1] <= 0:
            raise InputError(f"settings.expected_loss: {pair} is not a share of the run, up to 1, and a loss")


def prepare(run: Run[PretrainSettings], corpus: list[DataFile]) -> tuple[PreTrainedTokenizerBase, Tokens]:
    """Tokenizer and rows, made or found by the main rank; the other ranks open the same files."""
    settings, cache = run.settings, cache_folder(run)
    given = local_model(run, settings.tokenizer, None).path if settings.tokenizer else None
    source = Source(
        corpus, settings.max_length, settings.boundary, settings.text_field, settings.validation_share, settings.seed
    )

    def tokenizer(mode: str) -> PreTrainedTokenizerBase:
        if given:
            return checked(load_tokenizer(given))
        return prepare_tokenizer(
            cache / "tokenizer", corpus, settings.vocabulary, settings.max_length,
            boundary=settings.boundary, text_field=settings.text_field, mode=mode, say=run.log,
        )  # fmt: skip

    found: list[Tokens] = []

    def work() -> None:
        own = tokenizer(settings.tokens)
        found.append(prepare_tokens(cache / "rows", own, source, settings.tokens, say=run.log))

    main_rank_first(run.world, cache, work)
    own = tokenizer("cached")
    if found:
        return own, found[0]
    return own, prepare_tokens(cache / "rows", own, source, "cached", say=run.log, checked=True)


def checked(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A given tokenizer, with a padding token. Raises InputError when it has no end token."""
    if tokenizer.eos_token_id is None:
        raise InputError("settings.tokenizer: it has no end token, so documents could not be told apart")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def describe(run: Run[PretrainSettings], tokens: Tokens) -> None:
    for name, rows in (("train", tokens.train), ("validation", tokens.validation)):
        run.log(f"{name}: {len(rows):,} rows of {rows.shape[1]} tokens, {rows.size:,} in all")
    run.log(f"rows {tokens.how} in {tokens.seconds:.1f} s: {tokens.reason}")


def facts(corpus: list[DataFile], tokens: Tokens) -> list[DataFact]:
    """Files and sides for the record and the card."""
    sides = (("train", tokens.train), ("validation", tokens.validation))
    return [*corpus, *(Side(name, {"rows": len(rows), "tokens": rows.size}) for name, rows in sides)]


def build_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> CausalLoss:
    """A GPT-2 of the shape asked for, initialised as its authors did."""
    shape = settings.model
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=settings.max_length, n_embd=shape.width, n_layer=shape.layers,
        n_head=shape.heads, resid_pdrop=shape.dropout, embd_pdrop=shape.dropout, attn_pdrop=shape.dropout,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own formula in one kernel: three times as fast, and keeps less
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    if settings.batch.activation_checkpointing:
        checkpoint_activations(network)
    return CausalLoss(network)


class ExpectedLoss:
    """Compares each evaluation with what the loss should be by then, and raises a flag when it is worse."""

    def __init__(self, run: Run[PretrainSettings], steps_per_epoch: int) -> None:
        self.run, self.plan = run, sorted(run.settings.expected_loss)
        self.total = run.settings.max_steps or math.ceil(run.settings.epochs * steps_per_epoch)

    def compare(self, metrics: dict[str, float], progress: Progress) -> None:
        """Called by the loop after each evaluation."""
        share = progress.step / self.total
        due = [loss for when, loss in self.plan if when <= share]
        if due and metrics["loss"] > due[-1]:
            self.run.telemetry.flag(
                "loss_behind_schedule",
                f"validation loss {metrics['loss']:.3f} after {share:.0%} of the run, expected {due[-1]:g} at most",
            )


def smoke_prompts(run: Run[PretrainSettings], tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> list[SmokePrompt]:
    """Beginnings of held-out rows, as text."""
    rows = tokens.validation[: run.settings.smoke_rows, : max(4, run.settings.max_length // 8)]
    texts = [tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in rows]
    return [{"prompt": text, "add_special_tokens": True} for text in texts if text]


if __name__ == "__main__":
    launch("pretrain", main)
