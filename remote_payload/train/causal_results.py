"""What a run of a language model leaves behind: the best model with its reference predictions, and the reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from remote_payload.train.answers import Answers, Questions, ask, summary, write_reports
from remote_payload.train.causal import CausalLoss, load_network, save_causal
from remote_payload.train.checkpoint import load_weights
from remote_payload.train.checkpoint_model import describe_checkpoint
from remote_payload.train.download import BaseModel
from remote_payload.train.folders import complete_folder, recover_folder, write_json
from remote_payload.train.greedy import write_causal_smoke
from remote_payload.train.micro_batch import release_memory
from remote_payload.train.packed_task import PackedTask
from remote_payload.train.packing import Document
from remote_payload.train.run import Run
from remote_payload.train.task import Outcome, Progress


class CausalResults:
    """Keeps ``models/best`` whole at any moment; at the end it goes back to the best weights and reports on them."""

    def __init__(
        self,
        run: Run,
        model: CausalLoss,
        tokenizer: PreTrainedTokenizerBase,
        base: BaseModel | None,
        compute: torch.dtype,
        about: dict[str, Any],
    ) -> None:
        self.run, self.model, self.tokenizer, self.base, self.compute = run, model, tokenizer, base, compute
        self.about = {"recipe": run.recipe, **about}
        if run.world.main:
            recover_folder(run.best)

    def keep_best(self, metrics: dict[str, float], progress: Progress) -> None:
        """The model as it is now, while training goes on; reference predictions come at the end."""
        if self.run.world.main:
            with complete_folder(self.run.best) as folder:
                save_causal(self.model.network, self.tokenizer, folder, self.base, self.about)
                write_json(folder / "metrics.json", {**_moment(progress), **metrics})
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

    def report(self, task: PackedTask, held_out: list[Document], questions: Questions, size: int) -> dict[str, Any]:
        """Held-out loss and answers, base beside tuned, written to ``reports/``; gives the tuned model's figures."""
        settings, model = self.run.settings.generation, self.model.eval()
        figures, answered = {}, {}
        wanted = {"tuned": self._tuned, "base": self._base} if settings.base else {"tuned": self._tuned}
        for name, context in wanted.items():
            with context() as network:
                figures[name] = task.measure(CausalLoss(network), held_out, size)
                if questions.prompts:
                    self.run.log(f"answering {len(questions.prompts)} held-out prompts with the {name} model")
                    answered[name] = self._ask(network, questions)
        if self.run.world.main:
            write_reports(self.run.reports, questions, settings, answered, figures)
        for line in summary(answered, figures):
            self.run.log(line)
        model.train()
        return {**figures["tuned"], **{f"generation/{k}": v for k, v in _numbers(answered.get("tuned")).items()}}

    def finish(self, outcome: Outcome, metrics: dict[str, Any], prompts: list[dict[str, Any]], ends: list[int]) -> None:
        """``models/best`` once more, complete: weights, figures, and what the smoke test will compare with."""
        if self.run.world.main:
            with complete_folder(self.run.best) as folder:
                save_causal(self.model.network, self.tokenizer, folder, self.base, self.about)
                write_json(folder / "metrics.json", {**_moment(outcome.progress), **metrics})
                device = self.run.world.device
                self.model.to("cpu")  # makes room for the copy that is loaded back
                release_memory()
                write_causal_smoke(folder, self.base.path if self.base else None, prompts, ends, device)
                self.model.to(device)
        self.run.world.barrier()

    def _ask(self, network: Any, questions: Questions) -> Answers:
        run = self.run
        return ask(run.world, network, self.tokenizer, questions, run.settings.generation, run.settings.seed)

    @contextmanager
    def _tuned(self) -> Iterator[Any]:
        yield self.model.network

    @contextmanager
    def _base(self) -> Iterator[Any]:
        """The model as it was: its adapter switched off, or loaded again where all of it was trained."""
        network = self.model.network
        if isinstance(network, PeftModel):
            with network.disable_adapter():
                yield network
            return
        self.model.to("cpu")
        release_memory()
        yield load_network(self.base.path, device=self.run.world.device, dtype=self.compute).eval()
        release_memory()
        self.model.to(self.run.world.device)


def _moment(progress: Progress) -> dict[str, Any]:
    """Step and epoch of the best evaluation."""
    best = next((entry for entry in progress.evaluations if entry["step"] == progress.best_step), None)
    return {"step": progress.best_step or progress.step, "epoch": best["epoch"] if best else None}


def _numbers(answers: Answers | None) -> dict[str, float]:
    scores = answers.scores if answers else {}
    return {key: value for key, value in scores.items() if isinstance(value, (int, float))}
