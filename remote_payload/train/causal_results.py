"""What a run of a language model leaves behind: the best model with its reference predictions, and the reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from remote_payload.train.answers import Answers, Questions, Report, ask, time_answers, write_report
from remote_payload.train.causal import CausalLoss, load_network, save_causal
from remote_payload.train.causal_card import causal_card, predicted_memory
from remote_payload.train.checkpoint import load_weights
from remote_payload.train.checkpoint_model import describe_checkpoint
from remote_payload.train.download import BaseModel
from remote_payload.train.folders import complete_folder, recover_folder, write_json, write_text
from remote_payload.train.greedy import write_causal_smoke
from remote_payload.train.lora import weights_of
from remote_payload.train.micro_batch import release_memory
from remote_payload.train.provenance import write_metadata
from remote_payload.train.results import best_entry
from remote_payload.train.run import Run
from remote_payload.train.task import Outcome, Progress


class Measured(Protocol):
    """A task that can say how good any model is at some documents (or pairs of them)."""

    def measure(self, model: CausalLoss, documents: Sequence[Any], size: int) -> dict[str, float]: ...


class CausalResults:
    """Keeps ``models/best`` whole at any moment; at the end it goes back to the best weights and reports on them.

    ``about`` is what gpurun.json says of talking to the model, ``data`` the facts of files and sides for the record,
    ``start`` the folder of the adapter that training starts from, where it does not start from the base alone.
    """

    def __init__(
        self, run: Run, model: CausalLoss, tokenizer: PreTrainedTokenizerBase, base: BaseModel | None,
        compute: torch.dtype, about: dict[str, Any], data: Sequence[dict[str, Any]] = (),
        start: str | None = None,
    ) -> None:  # fmt: skip
        self.run, self.model, self.tokenizer, self.base, self.compute = run, model, tokenizer, base, compute
        self.about, self.data = {"recipe": run.recipe, **about}, list(data)
        self.start = start
        if run.world.main:
            recover_folder(run.best)

    def keep_best(self, metrics: dict[str, float], progress: Progress) -> None:
        """The model as it is now, while training goes on; reference predictions come at the end."""
        if self.run.world.main:
            with complete_folder(self.run.best) as folder:
                self._save(folder, progress, metrics)
        self.run.world.barrier()

    def describe_checkpoint(self, folder: Path) -> None:
        """What a checkpoint needs, besides its tensors, to be tried by itself (``extras`` of the loop)."""
        describe_checkpoint(folder, self.model.network, self.tokenizer, self.base, self.about)

    def restore_best(self, progress: Progress) -> None:
        """Puts the best weights back, from their checkpoint, unless they are the last."""
        if progress.best_step in (None, progress.step):
            return
        path = self.run.checkpoints / f"step-{progress.best_step:06d}"
        if path.is_dir():
            load_weights(path, self.model)
            self.run.log(f"back to the best weights: {path.name}")
        else:
            self.run.log(f"{path.name} was not kept, so the reports are on the last weights")

    def report(self, task: Measured, held_out: Sequence[Any], questions: Questions, size: int) -> Report:
        """Held-out figures and answers, base beside tuned, written to ``reports/``. Every rank must call it."""
        settings, report = self.run.settings.generation, Report(questions)
        self.model.eval()
        wanted = {"tuned": self._tuned, "base": self._base} if settings.base else {"tuned": self._tuned}
        for name, context in wanted.items():
            with context() as network:
                report.held_out[name] = task.measure(CausalLoss(network), held_out, size)
                if questions.prompts:
                    report.answered[name] = self._answers(name, network, questions)
        if self.run.world.main:
            write_report(self.run.reports, report, settings)
        for line in report.lines():
            self.run.log(line)
        return report

    def finish(
        self, outcome: Outcome, metrics: dict[str, Any], inputs: Sequence[dict[str, Any]], ends: Sequence[int],
        report: Report | None = None,
    ) -> None:  # fmt: skip
        """``models/best`` once more, complete with card and what the smoke test compares; and the record of the run.

        ``inputs`` are the smoke test's (``{"prompt", "add_special_tokens"}``), ``ends`` the tokens at which answers end.
        """
        if self.run.world.main:
            with complete_folder(self.run.best) as folder:
                self._save(folder, outcome.progress, metrics, outcome, report)
                device = self.run.world.device
                self.model.to("cpu")  # makes room for the copy that is loaded back
                release_memory()
                write_causal_smoke(folder, self.base.path if self.base else None, inputs, ends, device)
                self.model.to(device)
        self.run.world.barrier()
        best, last = best_entry(outcome.progress), outcome.progress.evaluations[-1:]
        compared = {name: report.numbers(name) for name in report.held_out} if report else {}
        write_metadata(
            self.run, self.model, outcome,
            base=self.base.as_dict() if self.base else None,
            data=self.data,
            results={"best": best, "last": last[0] if last else None, **compared},
            memory_predicted=predicted_memory(self.run, self.model.network, self.about, outcome),
        )  # fmt: skip

    def _save(
        self, folder: Path, progress: Progress, metrics: dict[str, float],
        outcome: Outcome | None = None, report: Report | None = None,
    ) -> None:  # fmt: skip
        network = self.model.network
        save_causal(network, self.tokenizer, folder, self.base, self.about)
        best = best_entry(progress) or progress.evaluations[-1]
        write_json(folder / "metrics.json", {"epoch": best["epoch"], "step": best["step"], **metrics})
        card = causal_card(self.run, network, self.base, self.about, progress, self.data, outcome, report)
        write_text(folder / "README.md", card)

    def _answers(self, name: str, network: Any, questions: Questions) -> Answers:
        settings, seed = self.run.settings.generation, self.run.settings.seed
        self.run.log(f"answering {len(questions.prompts)} held-out prompts with the {name} model")
        answers = ask(self.run.world, network, self.tokenizer, questions, settings, seed)
        if name == "tuned":  # the base has the same shape, and often finds no end
            answers.scores["latency"] = time_answers(network, self.tokenizer, questions, settings, seed)
        return answers

    @contextmanager
    def _tuned(self) -> Iterator[Any]:
        yield self.model.network

    @contextmanager
    def _base(self) -> Iterator[Any]:
        """The model as training found it: with the adapter it started from, or none, or loaded again where all was trained."""
        network = self.model.network
        if self.start:
            with weights_of(network, self.start):
                yield network
            return
        if isinstance(network, PeftModel):
            with network.disable_adapter():
                yield network
            return
        self.model.to("cpu")
        release_memory()
        yield load_network(self.base.path, device=self.run.world.device, dtype=self.compute).eval()
        release_memory()
        self.model.to(self.run.world.device)
