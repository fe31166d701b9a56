"""For ``gpurun check``: whether the boxes that a job names can work on one run together."""

from __future__ import annotations

from collections.abc import Sequence

from runner.domain.errors import HostError, UserError
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.workflow.connect import resolve_or_start_host
from runner.workflow.several_boxes.members import connect_all, fail_if_hosts_do_not_fit
from runner.workflow.several_boxes.preflight import SLOW, describe, meet
from runner.workflow.submission.checks import Finding


def check_network(job: Job, hosts: Sequence[str], report: Reporter, *, volume: str | None, strict: bool) -> Finding:
    """What the boxes say of the network between them."""
    try:
        fail_if_hosts_do_not_fit(job, hosts)
        targets = [resolve_or_start_host(host, volume) for host in hosts]
        with connect_all(hosts, targets, report, strict=strict) as members:
            meeting = meet([member.link for member in members], report)
    except (HostError, UserError) as error:
        return Finding("network", "fail", error.message, error.hint)
    slow = f"{SLOW / 1e6:.0f} MB/s are advised" if meeting.rate < SLOW else ""
    return Finding("network", "warn" if slow else "ok", describe(meeting), slow)
