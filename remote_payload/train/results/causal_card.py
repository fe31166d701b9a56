"""The card of a language model: how to use it, what it was measured at, its base beside it, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.forecast import TrainingShape, forecast_memory
from remote_payload.settings.generation import Generation
from remote_payload.train.data.facts import DataFact
from remote_payload.train.download import BaseModel
from remote_payload.train.evaluation.answers import Report
from remote_payload.train.files import shown_path
from remote_payload.train.loop.best import Weights, remark
from remote_payload.train.loop.task import Outcome, Progress
from remote_payload.train.results.card import dataset_name, hub_metadata, render_card
from remote_payload.train.run import Run

LOADING = {
    "adapter": """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("models/best")""",
    "adapter of a folder": """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

BASE = "{base}"  # the folder it was trained on, wherever it lies now
base = AutoModelForCausalLM.from_pretrained(BASE, local_files_only=True)
model = PeftModel.from_pretrained(base, "models/best")""",
    "whole": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("models/best")""",
}
ASKING = {
    True: """inputs = tokenizer.apply_chat_template(
    [{"role": "user", "content": "…"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)""",
    False: """inputs = tokenizer(PROMPT, return_tensors="pt")  # the prompt's form is under Training""",
}
USAGE = """{loading}
tokenizer = AutoTokenizer.from_pretrained("models/best")
{asking}
output = model.generate(**inputs, max_new_tokens={new_tokens}, eos_token_id={ends})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
SAMPLES = 3
LONGEST = 600  # characters of a sample


def causal_card(
    run: Run, network: Any, base: BaseModel | None, about: dict[str, Any], progress: Progress, data: Sequence[DataFact],
    weights: Weights, outcome: Outcome | None = None, report: Report | None = None,
) -> str:  # fmt: skip
    """README.md of ``models/best``, which holds ``weights``; before the end there are no ``outcome`` and ``report`` yet."""
    settings, name = run.settings, str(run.job.get("name") or run.recipe)
    best = weights.entry
    adapter = hasattr(network, "peft_config")
    measured = {**best["metrics"], **(report.numbers("tuned") if report else {})}
    metadata = hub_metadata(
        base_model=base.id if base and base.on_the_hub else None, adapter=adapter, licence=base.licence if base else None,
        task="text-generation", tags=[run.recipe], name=name, dataset=dataset_name(settings), metrics=measured,
    )  # fmt: skip
    loading = LOADING["whole" if not adapter else "adapter" if base and base.on_the_hub else "adapter of a folder"]
    usage = USAGE.format(
        loading=loading.format(base=base.name if base else ""),
        asking=ASKING[bool(about.get("chat"))],
        new_tokens=getattr(settings, "generation", Generation()).max_new_tokens,
        ends=about.get("end_tokens"),
    )
    return render_card(
        title=name,
        summary=summary(run, network, base, adapter),
        usage=usage,
        metadata=metadata,
        metric=settings.evaluation.metric,
        higher_is_better=run.higher_is_better,
        best=best,
        history=progress.evaluations,
        data=[fact.line() for fact in data],
        training=training_lines(run, about, progress, outcome),
        sections=sections(report) if report else [],
        note=remark(weights, outcome),
    )


def summary(run: Run, network: Any, base: BaseModel | None, adapter: bool) -> str:
    """What was trained, in a sentence."""
    if base is None:
        return f"A `{network.config.model_type}` language model trained from nothing by `{run.recipe}`."
    how = f"LoRA of rank {network.peft_config['default'].r}" if adapter else "full fine-tuning"
    answers = "; the loss was on the answers only" if run.recipe in ("sft", "preference") else ""
    start = f", going on from the adapter `{shown_path(run.settings.adapter)}`" if run.recipe == "preference" else ""
    return f"`{base.name}`, trained by `{run.recipe}` with {how}{start}{answers}."


def training_lines(run: Run, about: dict[str, Any], progress: Progress, outcome: Outcome | None) -> dict[str, Any]:
    """Settings and figures of training, as the rows of a table."""
    settings = run.settings
    rate = f"{settings.optimizer.learning_rate:g}, {settings.schedule.name}, warm-up {settings.schedule.warmup:g}"
    lines: dict[str, Any] = {
        "learning rate": rate,
        "effective batch": f"{settings.batch.size} (micro-batch {progress.micro}, {run.world.size} device(s))",
        "steps": progress.step,
        "seed": settings.seed,
    }
    if about.get("max_length"):
        lines["longest example"] = f"{about['max_length']} tokens"
    if about.get("prompt_template"):
        lines["prompt"] = "`" + about["prompt_template"].replace("\n", "\\n") + "`"
    if about.get("system_prompt"):
        lines["system prompt"] = about["system_prompt"]
    if outcome:
        speed = f"{outcome.tokens_per_second:,.0f} tokens/s"
        lines["time"] = f"{outcome.seconds:,.0f} s, {speed}, ended: {outcome.reason}"
        lines |= {"MFU": f"{outcome.mfu:.1%}"} if outcome.mfu else {}
        lines |= {"GPU memory": f"{outcome.peak_memory / 2**30:.1f} GiB"} if outcome.peak_memory else {}
    return lines


def sections(report: Report) -> list[dict[str, str]]:
    """The base beside the tuned model, and the first answers of both."""
    names = list(report.held_out)
    rows = "\n".join(f"| {key} | {' | '.join(cells)} |" for key, cells in report.table().items())
    table = f"| held-out | {' | '.join(names)} |\n|---|{'---|' * len(names)}\n{rows}"
    found = [{"title": "Before and after", "text": f"{table}\n\n`base` is the model that this training started from."}]
    if report.answered:
        shown = []
        for row in report.rows()[:SAMPLES]:
            parts = [f"- {name}: {quoted(text)}" for name, text in row.items()]
            shown.append("\n".join(parts))
        found.append({"title": "Samples", "text": "\n\n".join(shown)})
    return found


def quoted(text: str) -> str:
    """The end of a text as one line of code, whatever it holds."""
    line = " ".join(text[-LONGEST:].split()).replace("`", "'")
    return f"`{line}`" if line else "(nothing)"


def predicted_memory(run: Run, network: Any, about: dict[str, Any], outcome: Outcome) -> dict[str, Any] | None:
    """The forecast that ``gpurun check`` makes, with the micro-batch that ran; None for a family without formula."""
    settings = run.settings
    half = run.world.device.type == "cuda" and settings.precision != "fp32"
    if "max_length" not in about:
        return None
    lora = network.peft_config["default"] if hasattr(network, "peft_config") else None
    shape = TrainingShape(
        micro_batch=outcome.progress.micro,
        length=about["max_length"],
        weights=str(network.dtype).removeprefix("torch."),
        autocast=half,
        lora_rank=lora.r if lora else 0,
        lora_targets=tuple(sorted(lora.target_modules)) if lora else "all-linear",
        lora_dropout=lora.lora_dropout if lora else 0.0,
        checkpoint_activations=settings.batch.activation_checkpointing,
    )
    try:
        return forecast_memory(Architecture.from_config(network.config.to_dict()), shape).as_dict()
    except (ValueError, KeyError):
        return None
