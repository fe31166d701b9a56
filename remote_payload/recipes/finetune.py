"""Recipe ``finetune``: a causal language model learns documents with all its weights; named evaluation sets measure what it knows."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.settings.finetune import FinetuneSettings
from remote_payload.train.data.facts import DataFact, Side
from remote_payload.train.data.structured import StructuredDataset, read_structured
from remote_payload.train.distributed import World
from remote_payload.train.download import local_model
from remote_payload.train.errors import InputError, TrainingError
from remote_payload.train.evaluation.continuations import write_continuations
from remote_payload.train.evaluation.evaluation_sets import EvaluationSets, SetMetrics, encode, overall
from remote_payload.train.loop.flops import flops_of_documents
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.causal import CausalLoss, TokenLoss, base_of
from remote_payload.train.model.causal_files import check_length, load_network, load_tokenizer
from remote_payload.train.model.greedy_decoding import SmokePrompt
from remote_payload.train.model.model_facts import Prompting
from remote_payload.train.model.precision import checkpoint_activations, resolve_precision
from remote_payload.train.results.causal_results import CausalResults
from remote_payload.train.results.checkpoint_model import load_any
from remote_payload.train.results.experiment import ExperimentLog
from remote_payload.train.results.publish import publish
from remote_payload.train.run import Run, launch
from remote_payload.train.state import rng
from remote_payload.train.state.best import Weights, best_weights
from remote_payload.train.state.progress import Progress
from remote_payload.train.tasks.rows import PackedRows, RowTask


def main(run: Run[FinetuneSettings]) -> None:
    settings, world = run.settings, run.world
    compute = resolve_precision(settings.precision, world.device)

    with run.phase("data"):
        check_settings(settings, world)
        dataset = read_structured(settings.dataset)
        check_metric(settings.evaluation.metric, dataset)
        base = local_model(run, settings.model, settings.revision)
        tokenizer = load_tokenizer(base.path, chat=False)
        rows, sets = tokenise(run, dataset, tokenizer)

    with run.phase("model"):
        rng.seed_everything(settings.seed)
        model = build_model(base.path, settings, world)

    evaluation = Evaluation(sets, world, compute, settings.evaluation.metric)
    task = RowTask(settings, world, rows, compute, evaluation.measure, loss)
    history = ExperimentLog(run, dataset.file, base)
    ends = [tokenizer.eos_token_id]
    prompting: Prompting = {"max_length": settings.max_length, "chat": False, "end_tokens": ends}
    results = CausalResults(run, model, tokenizer, base, compute, prompting, facts(dataset, rows, sets))
    questions = [example.prompt for examples in dataset.evaluations.values() for example in examples[:1]]
    smoke: list[SmokePrompt] = [
        {"prompt": prompt, "add_special_tokens": True} for prompt in questions[: settings.smoke_rows]
    ]
    outcome = train(
        run, model, task,
        flops_per_token=flops_of_documents(model, rows.documents),
        on_evaluation=lambda metrics, progress: history.record(*moment(progress), evaluation.latest),
        on_stop=lambda outcome, clock: results.finish_stopped(
            outcome, clock, smoke, ends, lambda: write_continuations(run, model.network, tokenizer, settings.prompts)
        ),
        extras=results.describe_checkpoint,
    )  # fmt: skip

    with run.phase("report"):
        if settings.shard:
            results.model, results.weights = whole_model(run, outcome.progress)
        else:
            results.restore_best(outcome.progress)
        write_continuations(run, results.model.network, tokenizer, settings.prompts)
        results.finish(outcome, None, smoke, ends)
    publish(run)


def loss(model: nn.Module, batch: MicroBatch) -> TokenLoss:
    """Cross-entropy of the next token, summed over all tokens but the first of each document.

    The model is a ``CausalLoss``; the batch is rows of packed documents, with their bounds.
    """
    found: TokenLoss = model(**batch.tensors)
    return found


def check_settings(settings: FinetuneSettings, world: World) -> None:
    """Raises InputError for settings that contradict each other or this machine."""
    if settings.shard and world.size == 1:
        raise InputError("settings.shard: there is one process alone, so there is nothing to shard the model over")


def check_metric(metric: str, dataset: StructuredDataset) -> None:
    """Raises InputError for a metric of an evaluation set that the dataset does not have."""
    _, slash, name = metric.partition("/")
    if slash and name not in dataset.evaluations:
        raise InputError(
            f"settings.evaluation.metric: {metric}: there is no evaluation set {name}; there are {', '.join(dataset.evaluations)}"
        )


def tokenise(
    run: Run[FinetuneSettings], dataset: StructuredDataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[PackedRows, EvaluationSets]:
    """Documents packed into rows of max_length, and the evaluation sets; the log describes them."""
    length = run.settings.max_length
    documents = encode(dataset.documents, tokenizer, length, ending=True)
    rows = PackedRows(documents, length)
    asked = {name: encode(examples, tokenizer, length, ending=False) for name, examples in dataset.evaluations.items()}
    tokens, full = sum(map(len, documents)), sum(len(document) == length for document in documents)
    run.log(
        f"train: {len(documents):,} documents, {tokens:,} tokens in {len(rows):,} rows of {length} "
        f"({tokens / (len(rows) * length):.0%} full), {full} documents as long as a row or truncated"
    )
    run.log(f"evaluation: {len(asked)} sets, {sum(map(len, asked.values())):,} questions")
    for name, count in dataset.left_out.items():
        run.log(f"{dataset.file.path} asks for {name} in {count} sets, which is not computed here")
    return rows, EvaluationSets(asked, length)


def facts(dataset: StructuredDataset, rows: PackedRows, sets: EvaluationSets) -> list[DataFact]:
    """File and sides for the record and the card."""
    documents = {"documents": len(rows.documents), "tokens": sum(map(len, rows.documents))}
    return [
        dataset.file,
        Side("train", {"rows": len(rows), **documents}),
        Side("evaluation", {"sets": len(sets.names), "questions": len(sets.owners)}),
    ]


def build_model(path: str, settings: FinetuneSettings, world: World) -> CausalLoss:
    """The model with trainable weights of the dtype asked for, on its device, or sharded over all of them."""
    dtype = torch.bfloat16 if settings.weights == "bf16" else torch.float32
    network = load_network(path, dtype=dtype)
    check_length(network, settings.max_length)
    if settings.batch.activation_checkpointing:
        checkpoint_activations(network)
    model = CausalLoss(network)
    if settings.shard:
        world.shard(model, blocks(network))
    model.to(world.device)
    return model


def blocks(network: PreTrainedModel) -> list[nn.Module]:
    """The decoder's layers, whatever the family calls them."""
    decoder = base_of(network).get_decoder()
    return list(decoder.layers if hasattr(decoder, "layers") else decoder.h)


class Evaluation:
    """All sets at once; the loop gets the means, the experiment's log the rest."""

    def __init__(self, sets: EvaluationSets, world: World, compute: torch.dtype, metric: str) -> None:
        self.sets, self.world, self.compute, self.metric = sets, world, compute, metric
        self.latest: SetMetrics = {}

    def measure(self, model: nn.Module, micro_batch_rows: int) -> dict[str, float]:
        self.latest = self.sets.measure(model, self.world, self.compute, micro_batch_rows)
        kind, slash, name = self.metric.partition("/")
        return {**overall(self.latest), **({self.metric: self.latest[name][kind]} if slash else {})}


def whole_model(run: Run[FinetuneSettings], progress: Progress) -> tuple[CausalLoss, Weights]:
    """The best model in one piece, on the CPU, from its checkpoint: no GPU may have room for all of it."""
    weights = best_weights(run, progress, memory=False)
    if weights is None or weights.place is None:
        raise TrainingError(
            "no checkpoint could be kept, and a model that is sharded over all GPUs can only be read from one"
        )
    network, _ = load_any(weights.place)
    return CausalLoss(network), weights


def moment(progress: Progress) -> tuple[int, float]:
    """Step and epoch of the latest evaluation."""
    return progress.step, progress.evaluations[-1]["epoch"]


if __name__ == "__main__":
    launch("finetune", main)
