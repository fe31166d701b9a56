"""From what a workflow returns to the document that ``--json`` prints: one function a document, or a part of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runner.cli import documents
from runner.cli.run_documents import run_document

if TYPE_CHECKING:
    from remote_payload.recipes.answers import Answer
    from runner.domain.answers import manifest, verbs
    from runner.domain.errors import GpurunError
    from runner.domain.job import Job
    from runner.domain.run import Run
    from runner.jobfile import Problem
    from runner.local_model.compare import Comparison
    from runner.local_model.report import SmokeReport
    from runner.push.preview import Item, Preview
    from runner.workflow.check import Checked
    from runner.workflow.checkpoints import Checkpoint
    from runner.workflow.clean import Choice
    from runner.workflow.done import Verdict
    from runner.workflow.fetch import Fetched
    from runner.workflow.follow_up import FollowedRun
    from runner.workflow.hosts import KnownHost, Move
    from runner.workflow.stop import Stopped
    from runner.workflow.submission.forecast import Forecast


def failure_document(error: GpurunError) -> documents.Failure:
    """The document of a command that ended with an error."""
    return {"error": error_part(error)}


def error_part(error: GpurunError) -> documents.Error:
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "meaning": error.meaning,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def check_document(checked: Checked) -> documents.Check:
    return {
        "job": checked.job,
        "ready": checked.ready,
        "findings": [
            {"what": each.what, "verdict": each.verdict, "said": each.said, "hint": each.hint}
            for each in checked.findings
        ],
        "forecasts": [_forecast(each) for each in checked.forecasts],
        "would_send": {name: _tree(shown) for name, shown in checked.previews.items()},
    }


def _forecast(forecast: Forecast) -> documents.Forecast:
    host = forecast.host
    return {
        "micro_batch": forecast.shape.micro_batch,
        "error": forecast.error,
        "vram": forecast.memory.total,
        "vram_parts": dict(forecast.memory.by_size()),
        "vram_there": forecast.card.memory_total if forecast.card else None,
        "ram": host.total,
        "ram_parts": {"processes": host.processes, "loading": host.loading, "checkpoint": host.checkpoint},
        "ram_there": forecast.ram,
        "ram_free": forecast.ram_free,
        "runs_at_once": host.runs,
        "disk": forecast.disk.total if forecast.disk else None,
        "disk_free": forecast.disk_free,
    }


def _tree(shown: Preview) -> documents.Tree:
    return {
        "root": shown.root,
        "bytes": shown.bytes,
        "count": shown.count,
        "folders": _sized(shown.folders),
        "files": _sized(shown.files),
        "left_out": [
            {
                "path": left.path,
                "reason": left.reason,
                "bytes": left.bytes,
                "files": left.files,
                "measured": left.measured,
            }
            for left in shown.left_out
        ],
        "left_out_count": shown.left_out_count,
    }


def _sized(items: Iterable[Item]) -> list[documents.Sized]:
    return [{"path": item.path, "bytes": item.bytes, "files": item.files} for item in items]


def dry_run_document(checked: Sequence[Checked]) -> documents.DryRun:
    return {"ready": all(each.ready for each in checked), "jobs": [check_document(each) for each in checked]}


def followed_document(followed: FollowedRun) -> documents.FollowedRun:
    fetched, models, error = followed.fetched, followed.models, followed.error
    return {
        **run_document(followed.run),
        "fetched": {"run_id": followed.run.run_id, **fetched_part(fetched)} if fetched else None,
        "smoke_test": None if models is None else [model_part(model) for model in models],
        "error": error_part(error) if error else None,
    }


def fetch_document(run: Run, fetched: Fetched) -> documents.Fetch:
    return {**run_document(run), **fetched_part(fetched)}


def fetched_part(fetched: Fetched) -> documents.Fetched:
    return {
        "into": str(fetched.into),
        "complete": fetched.complete,
        "new": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in fetched.new],
        "kept": fetched.kept,
        "bytes": fetched.bytes,
        "left_out": _left_out(fetched.left_out),
    }


def _left_out(left_out: Iterable[manifest.LeftOut]) -> list[documents.LeftOut]:
    return [{"path": each.path, "why": each.why} for each in left_out]


def stop_document(stopped: Stopped) -> documents.Stop:
    return {**run_document(stopped.run), "device_holders": [_process(each) for each in stopped.device_holders]}


def _process(process: verbs.Process) -> documents.Process:
    return {"pid": process.pid, "command": process.command, "state": process.state, "gpus": list(process.gpus)}


def done_document(run: Run, verdict: Verdict) -> documents.Done:
    return {
        **run_document(run),
        "safe_to_destroy": verdict.safe,
        "reasons": verdict.reasons,
        "files": verdict.files,
        "left_out": _left_out(verdict.left_out),
        "home": sorted(verdict.fetched),
        "given_up": list(verdict.given_up),
    }


def clean_document(host: str, choice: Choice, found: verbs.Cleaned, *, dry_run: bool) -> documents.Clean:
    return {
        "host": host,
        "dry_run": dry_run,
        "experiment": [
            {"run_id": each.run_id, "group": each.group, "goes": each.goes, "why": each.why} for each in choice.decided
        ],
        "removed": _on_disk(found.removed),
        "kept": _on_disk(found.kept),
        "bytes": found.bytes,
    }


def _on_disk(items: Iterable[verbs.Item]) -> list[documents.OnDisk]:
    return [{"path": item.path, "bytes": item.bytes, "why": item.why} for item in items]


def checkpoints_document(run: Run, found: Iterable[Checkpoint]) -> documents.Checkpoints:
    return {**run_document(run), "checkpoints": [_checkpoint(each) for each in found]}


def _checkpoint(checkpoint: Checkpoint) -> documents.Checkpoint:
    return {
        "name": checkpoint.name,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "size": checkpoint.size,
        "resumable": checkpoint.resumable,
        "here": checkpoint.here,
        "on_box": checkpoint.on_box,
    }


def sample_document(run: Run, answers: Iterable[Answer], *, on_box: bool) -> documents.Sample:
    return {**run_document(run), "on_box": on_box, "answers": [_answer(each) for each in answers]}


def _answer(answer: Answer) -> documents.Answer:
    return {
        "prompt": answer.prompt,
        "text": answer.text,
        "tokens": answer.tokens,
        "seconds": answer.seconds,
        "ended": answer.ended,
    }


def smoke_test_document(run: Run | None, reports: Sequence[SmokeReport]) -> documents.SmokeTest:
    return {
        "run_id": run.run_id if run else None,
        "passed": all(report.passed for report in reports),
        "models": [model_part(report) for report in reports],
    }


def model_part(report: SmokeReport) -> documents.Model:
    return {
        "folder": str(report.folder),
        "kind": report.kind,
        "passed": report.passed,
        "device": report.device,
        "device_name": report.device_name,
        "dtype": report.dtype,
        "torch": report.torch,
        "load_seconds": report.load_seconds,
        "samples": report.samples,
        "samples_per_second": report.samples_per_second,
        "tokens_per_second": report.tokens_per_second,
        "peak_memory": report.peak_memory,
        "counts": report.counts,
        "texts": list(report.texts),
        "comparison": _comparison(report.comparison) if report.comparison else None,
        "not_opened": list(report.not_opened),
    }


def _comparison(found: Comparison) -> documents.Comparison:
    return {
        "rows": found.rows,
        "difference": found.difference,
        "worst_row": found.worst_row,
        "limit": found.limit,
        "agree": found.agree,
        "answers": found.answers,
        "problems": list(found.problems),
    }


def move_document(move: Move) -> documents.Moved:
    return {
        "old": move.old,
        "new": move.new,
        "runs": list(move.runs),
        "left": list(move.left),
        "keys_removed": move.keys_removed,
    }


def hosts_document(hosts: Iterable[KnownHost]) -> documents.Hosts:
    return {"hosts": [_host(host) for host in hosts]}


def _host(host: KnownHost) -> documents.Host:
    return {
        "typed": host.typed,
        "address": host.address,
        "known_as": host.known_as,
        "volume": host.volume,
        "seen_at": host.seen_at,
        "fingerprints": list(host.fingerprints),
    }


def job_file_part(path: str, job: Job | None, problems: Iterable[Problem]) -> documents.JobFile:
    """What was found in one job file; ``job`` is the complete job where there is no problem."""
    found = [_problem(problem) for problem in problems]
    good = job if not found else None
    return {
        "path": path,
        "ok": good is not None,
        "problems": found,
        "job": good.wire() if good else None,
        "summary": good.summary if good else None,
        "warnings": list(good.warnings) if good else [],
    }


def _problem(problem: Problem) -> documents.Problem:
    return {
        "path": problem.path,
        "line": problem.place.line,
        "column": problem.place.column,
        "set": problem.place.override or None,
        "message": problem.message,
    }
