"""``gpurun check``: the steps of a submission up to the point where something would be sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.domain.answers.box import Box
from runner.domain.errors import GpurunError, HostError, HubAccessDenied, PythonMissing
from runner.domain.job import Job
from runner.domain.progress import Prefixed, Reporter
from runner.domain.quantities import format_size, pluralise
from runner.domain.run import BOX, SLURM
from runner.push.preview import Preview, preview
from runner.workflow.connect import connect, fail_if_python_cannot_be_installed, resolve_or_start_host
from runner.workflow.each_host import each_host
from runner.workflow.several_boxes.check import check_network
from runner.workflow.submission import access, checks, cluster, place
from runner.workflow.submission.checks import Finding
from runner.workflow.submission.forecast import Forecast
from runner.workflow.submission.models import read_models, runs_with_forecast
from runner.workflow.submission.plan import Plan, Requirements, make_plan
from runner.workflow.submission.verdicts import Judged, judge


@dataclass(frozen=True)
class Checked:
    """What was found, what would be sent, and whether a submission would start."""

    job: str
    findings: list[Finding]
    previews: dict[str, Preview]
    forecasts: list[Forecast]

    @property
    def ready(self) -> bool:
        return all(finding.verdict != "fail" for finding in self.findings)


@dataclass(frozen=True)
class CheckedHost:
    """What was found of one job on one of several hosts, or the error that kept gpurun from looking."""

    host: str
    checked: Checked | None = None
    error: GpurunError | None = None

    @property
    def ready(self) -> bool:
        return self.checked is not None and self.checked.ready


def check_hosts(
    job: Job,
    hosts: Sequence[str],
    report: Reporter,
    *,
    volume: str | None,
    strict: bool,
    checksum: bool,
    engine: str = BOX,
) -> list[CheckedHost]:
    """What ``check`` finds on each host, all at once; a host that cannot be asked has its error."""

    def look(host: str) -> Checked:
        told = Prefixed(report, f"{host}: ")
        return check([job], host, told, volume=volume, strict=strict, checksum=checksum, engine=engine)[0]

    answers = each_host(hosts, look)
    for error in answers.errors.values():
        if not isinstance(error, HostError):
            raise error
    looked = [CheckedHost(host, answers.given.get(host), answers.errors.get(host)) for host in hosts]
    if job.resources.boxes > 1 and looked[0].checked:
        looked[0].checked.findings.append(check_network(job, hosts, report, volume=volume, strict=strict))
    return looked


def check(
    jobs: Sequence[Job],
    host: str,
    report: Reporter,
    *,
    volume: str | None = None,
    strict: bool = False,
    checksum: bool = False,
    despite_forecast: bool = False,
    engine: str = BOX,
) -> list[Checked]:
    """Address, key, GPU, driver, disk, Python, rsync, hub access, predicted memory, what would be sent, of each job over one connection.

    The runs of all jobs are taken to train at the same time, as those of one submission; what is forecast of them stands with the first
    job. Raises the errors of ``submit`` that keep it from checking.
    """
    plans = [make_plan(job, checksum=checksum) for job in jobs]
    try:
        with connect(resolve_or_start_host(host, volume), report, strict=strict) as link:
            boxes = [checks.probe(link, plan, None, report, try_torch=new) for plan, new in _with_new_packages(plans)]
            reached = Finding("connection", "ok", f"{link.host}, {link.rtt * 1000:.0f} ms away")
            place.remember(link, boxes[0], volume)
    except PythonMissing:
        fail_if_python_cannot_be_installed(resolve_or_start_host(host, volume), report)
        return [
            Checked(plan.job.name, [_WITHOUT_PYTHON, *_hub(plan.job, report)], _previews(plan), []) for plan in plans
        ]
    runs = runs_with_forecast(jobs)
    on_cluster = engine == SLURM
    meant = cluster.for_forecast(boxes[0], jobs[0]) if on_cluster else boxes[0]
    judged = judge(runs, meant, read_models(runs), despite=despite_forecast)
    told = [judged, *(Judged([], []) for _ in plans[1:])]
    return [
        _checked(plan, box, [reached, *(cluster if on_cluster else checks).examine(box, plan)], each, report)
        for plan, box, each in zip(plans, boxes, told, strict=True)
    ]


def _checked(plan: Plan, box: Box, looked_at: list[Finding], judged: Judged, report: Reporter) -> Checked:
    job = plan.job
    findings = [looked_at[0], *place.find_place(box), *looked_at[1:]]
    findings += _hub(job, report)
    findings += judged.findings
    findings += [Finding("job", "warn", warning) for warning in plan.warnings]
    findings += _sends(plan, {tree.name: checks.has_tree(box, plan, tree.name) for tree in plan.trees})
    return Checked(job.name, findings, _previews(plan), judged.forecasts)


def _with_new_packages(plans: Sequence[Plan]) -> Iterator[tuple[Plan, bool]]:
    """Each plan, and whether no plan before it has its packages: of the runs of a sweep, torch is asked for the first alone."""
    seen: set[Requirements] = set()
    for plan in plans:
        yield plan, plan.requirements not in seen
        seen.add(plan.requirements)


_WITHOUT_PYTHON = Finding(
    "Python",
    "warn",
    "not there; gpurun submit installs it with apt-get before anything else",
    "GPU, disk and packages can be looked at only then.",
)


def _previews(plan: Plan) -> dict[str, Preview]:
    return {tree.name or "code": preview(tree.selection) for tree in plan.trees}


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
        text = f"{pluralise(len(tree.selection.files), 'file')}, {format_size(tree.selection.total_bytes)}"
        found.append(
            Finding(f"push {tree.name or 'code'}", "ok", text + (", on the box already" if there[tree.name] else ""))
        )
    return found
