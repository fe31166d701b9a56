"""What cannot be exported, found in the files of a model before anything is downloaded or loaded."""

from __future__ import annotations

from remote_payload.publish.contents import is_checkpoint
from runner.domain.errors import UserError
from runner.local_model.model_folder import ADAPTER, ModelFolder


def refuse_no_checkpoint(model: ModelFolder) -> None:
    """Raises UserError for a model that is no checkpoint of a recipe's: peft and transformers load it as it is."""
    if not is_checkpoint(model.folder):
        raise UserError(
            f"{model.folder} is no checkpoint of a recipe, so --plain would only copy it: peft and transformers load it as it is",
            hint="Leave --plain out, or name a checkpoint: RUN:step-000100.",
        )


def refuse_what_cannot_be_merged(model: ModelFolder) -> None:
    """Raises UserError for a model without predictions to test an export by, and for an adapter that is no LoRA.

    An adapter on a matrix that is both embedding and output head is found where the base is loaded (``worker/export.py``).
    """
    if model.kind == "encoder":
        raise UserError(
            f"{model.folder} is an encoder without a head: it has no logits or text that an export could be compared by",
            hint="Merge it with peft's merge_and_unload, and compare its vectors with your own code.",
        )
    kind = model.inspected.configs.get(ADAPTER, {}).get("peft_type", "LORA")
    if model.adapter and kind != "LORA":
        raise UserError(
            f"the adapter in {model.folder} is {str(kind)[:40]!a}; only a LoRA becomes part of its base's weights",
            hint="Use it as it is, with peft.",
        )
