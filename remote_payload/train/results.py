"""What a classify run leaves behind: the best model complete with card and reference predictions, and the record of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remote_payload.train.classifier import Classifier, save_classifier
from remote_payload.train.download import BaseModel
from remote_payload.train.folders import complete_folder, recover_folder, write_json
from remote_payload.train.labelled import LabelledTexts, Tokenised
from remote_payload.train.run import Run
from remote_payload.train.smoke import write_classifier_smoke
from remote_payload.train.task import Outcome, Progress


class ClassifierResults:
    """Writes ``models/best`` each time an evaluation is the best so far; the folder is whole at any moment."""

    def __init__(
        self, run: Run, model: Classifier, tokenizer: Any, base: BaseModel, data: LabelledTexts, sides: list[Tokenised]
    ) -> None:
        self.run, self.model, self.tokenizer, self.base, self.data, self.sides = (
            run,
            model,
            tokenizer,
            base,
            data,
            sides,
        )
        if run.world.main:
            recover_folder(run.best)

    def keep_best(self, metrics: dict[str, float], progress: Progress) -> None:
        if self.run.world.main:
            settings = self.run.settings
            about = {"labels": self.data.labels, "max_length": settings.max_length, "step": progress.step}
            texts = [example.text for example in evenly(self.data.validation, settings.smoke_rows)]
            with complete_folder(self.run.best) as folder:
                save_classifier(self.model, self.tokenizer, folder, self.base, about)
                epoch = progress.evaluations[-1]["epoch"]
                write_json(folder / "metrics.json", {"epoch": epoch, "step": progress.step, **metrics})
                write_classifier_smoke(folder, self.base.path, texts, self.run.world.device)
        self.run.world.barrier()

    def finish(self, outcome: Outcome) -> None:
        """The card and the record, with the numbers of the whole run."""


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Up to ``count`` items, spread over the whole sequence."""
    taken = min(count, len(items))
    return [items[index * len(items) // taken] for index in range(taken)]
