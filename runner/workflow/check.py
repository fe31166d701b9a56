"""`gpurun check`: the submission's line up to the point where something would be sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from runner.domain.errors import GpurunError, HubAccessDenied
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.domain.words import count
from runner.push.preview import Preview, preview
from runner.workflow import access, checks
from runner.workflow.checks import Finding
from runner.workflow.connect import host_of, to_host
from runner.workflow.forecast import forecast
from runner.workflow.plan import Plan, make_plan
from runner.workflow.submit import probe


@dataclass(frozen=True)
class Checked:
    """What was found, what would be sent, and whether a submission would start."""

    findings: list[Finding]
    previews: dict[str, Preview]

    @property
    def ready(self) -> bool:
        return all(finding.verdict != "fail" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "ready": self.ready,
            "findings": [asdict(finding) for finding in self.findings],
            "would_send": {name: shown.json() for name, shown in self.previews.items()},
        }


def check(
    job: Job, host: str, report: Reporter, *, volume: str | None = None, strict: bool = False, checksum: bool = False
) -> Checked:
    """Address, key, GPU, driver, disk, Python, rsync, hub access, predicted VRAM, what would be sent. Raises what stops it from looking."""
    plan = make_plan(job, checksum=checksum)
    with to_host(host_of(host, volume), report, strict=strict) as link:
        box = probe(link, plan, None, report)
        findings = [Finding("connection", "ok", f"{link.host}, {link.rtt * 1000:.0f} ms away")]
    findings += checks.look_at(box, plan)
    findings += _hub(job, report)
    findings += forecast(job, box)
    findings += [Finding("job", "warn", warning) for warning in job.warnings]
    findings += _sends(plan, {tree.name: checks.has(box, plan, tree.name) for tree in plan.trees})
    return Checked(findings, {tree.name or "code": preview(tree.selection) for tree in plan.trees})


def _hub(job: Job, report: Reporter) -> list[Finding]:
    if not job.hub.models:
        return []
    names = ", ".join(job.hub.models)
    try:
        token = access.require(job, report)
    except HubAccessDenied as error:
        return [Finding("Hugging Face", "fail", error.message, error.hint)]
    except GpurunError as error:
        return [Finding("Hugging Face", "warn", error.message, error.hint)]
    return [Finding("Hugging Face", "ok", f"may read {names}" + ("" if token else " (public; no token is sent)"))]


def _sends(plan: Plan, there: dict[str, bool]) -> list[Finding]:
    found = []
    for tree in plan.trees:
        said = f"{count(len(tree.selection.files), 'file')}, {tree.selection.total_bytes / 1e6:.1f} MB"
        found.append(
            Finding(f"push {tree.name or 'code'}", "ok", said + (", on the box already" if there[tree.name] else ""))
        )
    return found
