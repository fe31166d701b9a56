"""Whether the box may be destroyed: the run over, everything home and verified, no secret left. Asked, proved, said."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner import store
from runner.domain.errors import ManifestMissing
from runner.domain.manifest import LeftOut
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean
from runner.transport.link import Link
from runner.workflow import status as statuses
from runner.workflow.connect import to_run
from runner.workflow.fetch import Receipt, ask_manifest, destination
from runner.workflow.follow import catch_up


@dataclass
class Verdict:
    """``safe`` when ``reasons`` is empty; each reason says what is missing and what to type."""

    run_id: str
    reasons: list[str] = field(default_factory=list)
    files: int = 0
    left_out: tuple[LeftOut, ...] = ()

    @property
    def safe(self) -> bool:
        return not self.reasons


def done(run: Run, report: Reporter, *, leave_behind: bool = False) -> Verdict:
    """Looks at the run, its outputs here and there, its log, its secrets, and at other runs on the same box.

    ``leave_behind`` says that what cannot be fetched (links, odd names) may go with the box.
    """
    verdict = Verdict(run.run_id)
    with to_run(run, report) as link:
        _over(link, run, verdict)
        _home(link, run, verdict, report, leave_behind)
        _wiped(link, run, verdict)
        _alone(link, run, verdict)
        catch_up(link, run)  # the log's last bytes belong to what is home
    if verdict.safe:
        store.update(run, done=True)
    return verdict


def _over(link: Link, run: Run, verdict: Verdict) -> None:
    seen = statuses.ask(link, run)
    if seen.status is None or not seen.status.finished:
        verdict.reasons.append(f"{run.run_id} is still running: gpurun logs -f waits for its end, gpurun stop ends it")


def _home(link: Link, run: Run, verdict: Verdict, report: Reporter, leave_behind: bool) -> None:
    try:
        manifest = ask_manifest(link, run, report)
    except ManifestMissing as error:
        verdict.reasons.append(error.message)
        return
    receipt = Receipt(destination(run, None))
    missing = [artifact for artifact in manifest.files if not receipt.has(artifact)]
    verdict.left_out = manifest.left_out
    lost = [each for each in manifest.left_out if not each.dispensable]
    if lost and not leave_behind:
        verdict.reasons.append(
            f"{len(lost)} things in outputs/ are never fetched, {lost[0]} among them: rename or copy them on the box and fetch"
            f" again, or give them up with gpurun done {run.run_id} --leave-behind"
        )
    verdict.files = len(manifest.files)
    if missing:
        size = sum(artifact.size for artifact in missing) / 1e6
        verdict.reasons.append(
            f"{len(missing)} of {verdict.files} files ({size:.1f} MB) are not home, {missing[0].path} among them: gpurun fetch {run.run_id}"
        )


def _wiped(link: Link, run: Run, verdict: Verdict) -> None:
    answer = link.agent.call("wipe", {"run_id": run.run_id})
    if left := answer.get("left"):
        verdict.reasons.append(f"secrets are still on the box: {clean(left)}")


def _alone(link: Link, run: Run, verdict: Verdict) -> None:
    for other in link.agent.call("status", {}).get("runs") or ():
        if isinstance(other, dict) and other.get("phase") != "finished" and other.get("run_id") != run.run_id:
            verdict.reasons.append(f"another run is on this box and not over: {clean(other.get('run_id'))}")
