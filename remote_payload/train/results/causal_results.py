"""What a run of a language model leaves behind: the best model with its card and reference predictions, and the reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from remote_payload.settings.generation import Generation
from remote_payload.train.data.facts import DataFact
from remote_payload.train.download import BaseModel
from remote_payload.train.errors import Stopped, TrainingError
from remote_payload.train.evaluation.answers import Answers, Questions, Report, ask, time_answers, write_report
from remote_payload.train.files import write_text
from remote_payload.train.folders import recover_folder
from remote_payload.train.loop.micro_batch import release_memory
from remote_payload.train.model.causal import CausalLoss, Network
from remote_payload.train.model.causal_files import load_network, load_saved, save_causal
from remote_payload.train.model.greedy_decoding import SmokePrompt
from remote_payload.train.model.lora import weights_of
from remote_payload.train.model.model_facts import Prompting
from remote_payload.train.results.causal_card import causal_card
from remote_payload.train.results.causal_smoke import write_causal_smoke
from remote_payload.train.results.checkpoint_model import describe_checkpoint
from remote_payload.train.results.predicted_memory import predicted_memory
from remote_payload.train.results.record import write_record
from remote_payload.train.results.usage import causal_usage
from remote_payload.train.run import Run
from remote_payload.train.signals import BrokenOff
from remote_payload.train.state.best import Weights, best_weights, model_folder, weights_facts, write_metrics
from remote_payload.train.state.checkpoint import load_weights
from remote_payload.train.state.grace import Clock
from remote_payload.train.state.progress import Outcome, Progress


class Measured(Protocol):
    """A task that can measure any model on some documents (or pairs of them)."""

    def measure(self, model: CausalLoss, documents: Sequence[Any], micro_batch_rows: int) -> dict[str, float]: ...


class CausalResults:
    """Keeps ``models/best`` complete at any moment; at the end it goes back to the best weights and reports on them.

    ``prompting`` is how the model is asked, for gpurun.json; ``data`` are the files and sides, for the record and the card;
    ``start`` is the folder of the adapter that training starts from, if there is one.
    """

    def __init__(
        self, run: Run, model: CausalLoss, tokenizer: PreTrainedTokenizerBase, base: BaseModel | None,
        compute: torch.dtype, prompting: Prompting, data: Sequence[DataFact] = (),
        start: str | None = None,
    ) -> None:  # fmt: skip
        self.run, self.model, self.tokenizer, self.base, self.compute = run, model, tokenizer, base, compute
        self.data = list(data)
        self.prompting: Prompting = {**prompting, "recipe": run.recipe}
        self.start = start
        self.weights: Weights | None = None  # what the model holds once training is over
        if run.world.main:
            recover_folder(run.best)

    def keep_best(self, metrics: dict[str, float], progress: Progress) -> None:
        """The model as it is now, while training goes on; reference predictions come at the end."""
        if self.run.world.main:
            with model_folder(self.run) as folder:
                self._save(folder, progress, metrics, Weights(progress.evaluations[-1], None))
        self.run.world.barrier()

    def describe_checkpoint(self, folder: Path) -> None:
        """Adds to a checkpoint the files that make it loadable by itself (``extras`` of the loop)."""
        describe_checkpoint(folder, self.model.network, self.tokenizer, self.base, self.prompting)

    def restore_best(self, progress: Progress) -> Weights | None:
        """Loads the best weights that still exist into the model and returns which they are. None when nothing was evaluated."""
        self.take(best_weights(self.run, progress))
        return self.weights

    def take(self, weights: Weights | None) -> None:
        """Loads these weights into the model, where it does not have them already."""
        self.weights = weights
        if weights and weights.place:
            if weights.place == self.run.best:
                load_saved(self.model.network, weights.place)
            else:
                load_weights(weights.place, self.model)
            self.run.log(f"back to the best weights: step {weights.step}, from {weights.place.name}")

    def report(
        self, task: Measured, held_out: Sequence[Any], questions: Questions, settings: Generation, micro_batch_rows: int
    ) -> Report:
        """Held-out figures and answers written to ``reports/``: tuned, before (the adapter as it came, where there is one) and base.

        Every rank must call it.
        """
        report = Report(questions)
        self.model.eval()
        wanted = {"tuned": self._tuned}
        if settings.base:
            wanted |= {"before": self._before, "base": self._base} if self.start else {"base": self._base}
        for name, context in wanted.items():
            with context() as network:
                report.held_out[name] = task.measure(CausalLoss(network), held_out, micro_batch_rows)
                if questions.prompts:
                    report.answered[name] = self._answers(name, network, questions, settings)
            if self.run.world.main:  # after each model: a stop may come during the next
                write_report(self.run.reports, report, settings)
        for line in report.lines():
            self.run.log(line)
        return report

    def finish(
        self, outcome: Outcome, metrics: dict[str, float] | None, inputs: Sequence[SmokePrompt], ends: Sequence[int],
        report: Report | None = None, smoke: bool = True,
    ) -> None:  # fmt: skip
        """Writes ``models/best`` once more, with its final card and the smoke test's reference predictions, and the record of the run.

        ``metrics`` are those of the weights that ``restore_best`` took, if they were measured again. ``inputs`` are the smoke
        test's prompts, ``ends`` the tokens at which answers end.
        """
        weights = self.weights
        if weights and weights.note:
            self.run.telemetry.flag("best_lost", weights.note)
        if weights and self.run.world.main:
            with model_folder(self.run, outcome) as folder:
                self._save(folder, outcome.progress, metrics or weights.entry["metrics"], weights, outcome, report)
                if smoke:
                    device = self.run.world.device
                    self.model.to("cpu")  # makes room for the copy that is loaded back
                    release_memory()
                    write_causal_smoke(folder, self.base.path if self.base else None, inputs, ends, device)
                    self.model.to(device)
        self.run.world.barrier()
        self.write_record(outcome, report)

    def finish_stopped(
        self, outcome: Outcome, clock: Clock, inputs: Sequence[SmokePrompt], ends: Sequence[int],
        report: Callable[[], Report | None] | None = None,
    ) -> None:  # fmt: skip
        """Writes what there is time for before the process is killed, the most valuable first: the record, the model with its card,
        its reference predictions, and the ``report``: as much of it as was measured by then.
        """
        self.write_record(outcome)
        network, world = self.model.network, self.run.world
        weights = best_weights(self.run, outcome.progress, memory=not world.sharded)
        if weights is None:
            return self.run.log("no model yet: nothing was evaluated before the stop")
        trained = [p for p in network.parameters() if p.requires_grad or not isinstance(network, PeftModel)]
        if world.broadcast(world.sharded or not clock.allows(2 * size_of(trained))):  # read and written
            return self.run.log(
                f"models/best is left as it is: the grace is too short to copy the weights of step {weights.step}"
            )
        self.take(weights)
        smoke = world.broadcast(clock.allows(2 * size_of(trained) + 4 * sum(p.numel() for p in network.parameters())))
        self.finish(outcome, None, inputs, ends, smoke=smoke)
        if report and smoke and world.size == 1:
            self.report_in_time(outcome, clock, report)

    def report_in_time(self, outcome: Outcome, clock: Clock, report: Callable[[], Report | None]) -> None:
        """Writes the report unless the time before the process is killed is over first: then what was written of it stays."""
        if clock.left <= 0:
            return
        try:
            with outcome.requests.breaking_after(clock.left):
                found = report()
        except BrokenOff:
            return self.run.log(
                "the report is left where it is, since the time to stop is over; a resumed run writes it"
            )
        if found:
            self.write_record(outcome, found)

    @contextmanager
    def unless_stopped(self, outcome: Outcome, inputs: Sequence[SmokePrompt], ends: Sequence[int]) -> Iterator[None]:
        """Around the report, which may take longer than the time that a stop allows: a stop interrupts it, ``finish_stopped`` writes
        what it can, and Stopped is raised. With several ranks nothing is interrupted, since they could not all leave the report at the
        same place; the record is written before it begins.
        """
        self.write_record(outcome)
        try:
            with outcome.requests.breaking(self.run.world.size == 1):
                yield
        except BrokenOff:
            self.finish_stopped(outcome, outcome.requests.clock(), inputs, ends)
            step = outcome.progress.step
            raise Stopped(
                outcome.requests.stop, f"stopped after training, at step {step}; a resumed run writes the report"
            ) from None

    def write_record(self, outcome: Outcome, report: Report | None = None) -> None:
        """``training_metadata.json``."""
        length = self.prompting.get("max_length")
        write_record(
            self.run, self.model, outcome, self.weights,
            base=self.base,
            data=self.data,
            compared={name: report.numbers(name) for name in report.held_out} if report else {},
            memory_predicted=predicted_memory(
                self.run, self.model.network, outcome, length, language_head=True, masked=False
            ),
        )  # fmt: skip

    def _save(
        self, folder: Path, progress: Progress, metrics: dict[str, float], weights: Weights,
        outcome: Outcome | None = None, report: Report | None = None,
    ) -> None:  # fmt: skip
        network = self.model.network
        save_causal(network, self.tokenizer, folder, self.base, self.prompting, weights_facts(weights, outcome))
        write_metrics(folder, weights, metrics)
        card = causal_card(
            self.run, network, self.base, self.prompting, progress, self.data, weights, self._usage(), outcome, report, self.start
        )  # fmt: skip
        write_text(folder / "README.md", card)

    def _usage(self) -> str:
        """The Python of the card."""
        generation = getattr(self.run.settings, "generation", Generation())
        return causal_usage(self.model.network, self.tokenizer, self.base, self.prompting, generation)

    def _answers(self, name: str, network: Network, questions: Questions, settings: Generation) -> Answers:
        seed = self.run.settings.seed
        self.run.log(f"answering {len(questions.prompts)} held-out prompts with the {name} model")
        answers = ask(self.run.world, network, self.tokenizer, questions, settings, seed)
        if name == "tuned":  # the base has the same shape, and often finds no end
            answers.scores["latency"] = time_answers(network, self.tokenizer, questions, settings, seed)
        return answers

    @contextmanager
    def _tuned(self) -> Iterator[Network]:
        yield self.model.network

    @contextmanager
    def _before(self) -> Iterator[Network]:
        """The model with the adapter that training started from."""
        assert isinstance(self.model.network, PeftModel) and self.start
        with weights_of(self.model.network, self.start) as network:
            yield network

    @contextmanager
    def _base(self) -> Iterator[Network]:
        """The base model: without any adapter, or loaded again where all of it was trained."""
        network = self.model.network
        if isinstance(network, PeftModel):
            with network.disable_adapter():
                yield network
            return
        if self.base is None:
            raise TrainingError("a model that was trained from nothing has no base to compare it with")
        self.model.to("cpu")
        release_memory()
        try:
            yield load_network(self.base.path, device=self.run.world.device, dtype=self.compute).eval()
        finally:
            release_memory()
            self.model.to(self.run.world.device)


def size_of(parameters: Iterable[Tensor]) -> int:
    """The bytes of all parameters together."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
