"""Whether a job fits the box by its forecast: the findings that ``check`` and ``submit`` show, and that stop a submission."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from remote_payload.forecast.accuracy import cannot_fit
from remote_payload.forecast.memory import GIB
from runner.domain.answers.box import Box
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.workflow.submission.checks import Finding, Verdict, fail_if_not_ready
from runner.workflow.submission.forecast import ATTENTION, Forecast, batch_of, predict, shape_of
from runner.workflow.submission.models import Models, key_of
from runner.workflow.submission.remedies import ways_to_fit

ALL_THE_SAME = "gpurun submit --despite-forecast starts it all the same."


@dataclass(frozen=True)
class Judged:
    """The forecasts of runs, one of each kind, and what they mean on this box; and which one is whose."""

    forecasts: list[Forecast]
    findings: list[Finding]
    of_runs: list[tuple[Job, Forecast]] = field(default_factory=list)


def judge(runs: Sequence[Job], box: Box, models: Models, *, despite: bool = False, brief: bool = False) -> Judged:
    """Forecasts every kind of run once (the same model, shape and resources), and compares with the box.

    ``despite``: what does not fit is a warning. ``brief``: without what is plentiful.
    """
    kinds: dict[Hashable, list[Job]] = {}
    findings: list[Finding] = []
    for run in runs:
        try:
            kind = (key_of(run), shape_of(run, box), batch_of(run), run.resources)
        except (ValueError, KeyError, TypeError, OSError) as error:  # the settings of an adapter that cannot be read
            findings.append(_not_possible(str(error)))
        else:
            kinds.setdefault(kind, []).append(run)
    forecasts = []
    of_runs: list[tuple[Job, Forecast]] = []
    for alike in kinds.values():
        model = models[key_of(alike[0])]
        if isinstance(model, str):
            findings.append(_not_possible(model))
            continue
        forecast = predict(alike[0], box, model, alike)
        forecasts.append(forecast)
        of_runs += [(run, forecast) for run in alike]
        whose = f" of {alike[0].name}" if len(kinds) > 1 else ""
        findings += [replace(each, what=each.what + whose) for each in _findings(forecast, despite, brief)]
    return Judged(forecasts, list(dict.fromkeys(findings)), of_runs)


def _not_possible(why: str) -> Finding:
    return Finding("VRAM forecast", "warn", f"not possible: {why}")


def tell(
    runs: Sequence[Job], box: Box, models: Models, report: Reporter, *, despite: bool
) -> list[tuple[Job, Forecast]]:
    """Prints the forecasts of a submission, and gives each run's. Raises BoxNotReady where a run cannot fit, unless ``despite``; nothing
    was started then.
    """
    judged = judge(runs, box, models, despite=despite, brief=True)
    for finding in judged.findings:
        if finding.verdict == "ok":
            report.note(f"{finding.what}: {finding.said}")
        elif finding.verdict == "warn":
            report.warn(f"{finding.what}: {finding.said}" + (f". {finding.hint}" if finding.hint else ""))
    fail_if_not_ready(judged.findings)
    return judged.of_runs


def _findings(forecast: Forecast, despite: bool, brief: bool) -> Iterator[Finding]:
    yield _gpu_memory(forecast, despite)
    for finding, needed, there in (_host_memory(forecast, despite), _disk(forecast)):
        if finding is not None and not (brief and finding.verdict == "ok" and needed < there // 2):
            yield finding


def _verdict(needed: int, there: int, forecast: Forecast, despite: bool) -> Verdict:
    if needed <= there:
        return "ok"
    return "fail" if cannot_fit(needed, there, forecast.error) and not despite else "warn"


def _gpu_memory(forecast: Forecast, despite: bool) -> Finding:
    memory, shape, card = forecast.memory, forecast.shape, forecast.card
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in memory.by_size() if size > GIB // 20)
    text = f"{memory.total / GIB:.1f} GiB with micro-batch {shape.micro_batch} of effective {forecast.batch} ({parts})"
    if card is None:
        return Finding("VRAM forecast", "ok", text)
    text += f"; GPU {card.index}, {card.name}, has {card.memory_total / GIB:.0f} GiB"
    verdict = _verdict(memory.total, card.memory_total, forecast, despite)
    if verdict == "ok":
        return Finding("VRAM forecast", "ok", text)
    text += f", and the forecast is {forecast.error:.0%} off at most"
    ways = ways_to_fit(forecast.model, shape, forecast.settings, card.memory_total, forecast.gpus, ATTENTION)
    fits = f"By the forecast it fits with {', or '.join(ways)}." if ways else "No setting makes it fit."
    larger = f"{fits} Or take a GPU with {memory.total / GIB:.0f} GiB."
    return Finding("VRAM forecast", verdict, text, f"{larger} {ALL_THE_SAME}" if verdict == "fail" else larger)


def _host_memory(forecast: Forecast, despite: bool) -> tuple[Finding | None, int, int]:
    """The finding, the bytes that are needed and those that are there."""
    host, ram = forecast.host, forecast.ram
    parts = {
        "processes": host.processes,
        "checkpoint being saved": host.checkpoint,
        "weights being loaded": host.loading,
    }
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    each = f" for {host.runs} runs at once, {host.each / GIB:.1f} each" if host.runs > 1 else ""
    text = f"{host.total / GIB:.1f} GiB{each} ({shown})"
    if ram is None:
        return Finding("RAM forecast", "ok", text), host.total, 0
    text += f"; the box has {ram / GIB:.0f} GiB"
    verdict = _verdict(host.total, ram, forecast, despite)
    free = ram if forecast.ram_free is None else min(forecast.ram_free, ram)
    if verdict == "ok" and host.total > free:
        verdict = "warn"
    if free < ram:
        text += f", {free / GIB:.0f} free now"
    if verdict == "ok":
        return Finding("RAM forecast", "ok", text), host.total, ram
    fitting = ram // host.each
    fewer = f"{fitting} runs at once fit: submit fewer. " if host.runs > 1 and fitting else ""
    hint = f"{fewer}A run that lacks memory is ended by the kernel, in a save as a rule. Take a box with more RAM."
    return (
        Finding("RAM forecast", verdict, text, f"{hint} {ALL_THE_SAME}" if verdict == "fail" else hint),
        host.total,
        ram,
    )


def _disk(forecast: Forecast) -> tuple[Finding | None, int, int]:
    """As ``_host_memory``, of checkpoints and finished models; None where their number is not known yet."""
    disk = forecast.disk
    if disk is None:
        return None, 0, 0
    together = f" of {disk.runs + forecast.removed} together (keep_finished)" if forecast.removed else ""
    runs = f"{disk.runs} runs{together}, " if disk.runs > 1 else ""
    text = (
        f"{disk.total / GIB:,.0f} GiB: {runs}{disk.checkpoints} checkpoints of {disk.each / GIB:.1f} GiB, {disk.resumable} of them"
        f" resumable; {forecast.disk_free / GIB:,.0f} GiB are free"
    )
    if disk.total <= forecast.disk_free:
        return Finding("disk forecast", "ok", text), disk.total, forecast.disk_free
    hint = "Set keep_finished, settings.checkpoint.keep or resumable, checkpoint less often, or clean up between runs (gpurun clean)."
    return Finding("disk forecast", "warn", text, hint), disk.total, forecast.disk_free
