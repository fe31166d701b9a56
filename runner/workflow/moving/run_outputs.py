"""Data that earlier runs wrote (``data: [run:ID/path]``): taken on the box where it has the run, else sent from this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from runner import files, store
from runner.domain.answers.manifest import Manifest
from runner.domain.errors import LaunchError, UnknownRun, UserError
from runner.domain.job import Job, RunOutput
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size, pluralise
from runner.domain.requests import DataRequest
from runner.domain.run import Run
from runner.push.digest import digest
from runner.push.selection import Entry, Selection
from runner.transport.link import Link
from runner.workflow.connect import connect_to_run
from runner.workflow.fetch import bring, exclusively, note_place
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.submission.plan import Plan, Tree

NOTHING = "Nothing was pushed or started."


def provide(link: Link, plan: Plan, report: Reporter) -> Plan:
    """The plan with what other runs wrote: as data that the box has now, or as further data to push.

    Raises UserError for a run that is not known, or has no such output or has not completed it; HostError where the box that has it
    does not answer; and as ``fetch`` does.
    """
    there: list[DataRequest] = []
    to_push: list[Tree] = []
    for place, output in plan.job.run_outputs.items():
        request = _take(link, place, output, report)
        if request is not None:
            there.append(request)
        else:
            to_push.append(_from_elsewhere(link, place, output, report))
    return replace(plan, data=(*plan.data, *to_push), shared=tuple(there))


def fail_if_runs_are_read(job: Job) -> None:
    """Raises UserError for a job on several boxes: each of them would need a copy, which is not done yet."""
    if job.run_outputs:
        named = ", ".join(map(str, job.run_outputs.values()))
        raise UserError(
            f"a job on several boxes cannot read {named} yet",
            meaning=NOTHING,
            hint="Fetch it (gpurun fetch), and name the folder here under data:, or use one box.",
        )


def _take(link: Link, place: str, output: RunOutput, report: Reporter) -> DataRequest | None:
    """The launch's argument for an output of a run of this box; None where the box has no such run."""
    with report.stage(f"take {output}") as stage:
        try:
            shared = link.agent.share(output.run_id, output.path)
        except LaunchError as error:
            raise UserError(error.message, meaning=NOTHING, hint=error.hint) from None
        if shared is None:
            stage.update(note="not on this box")
            return None
        stage.update(note=f"{pluralise(shared.files, 'file')}, {format_size(shared.bytes)}, on the box")
    return {"path": place, "key": shared.key, "member": shared.member}


def _from_elsewhere(link: Link, place: str, output: RunOutput, report: Reporter) -> Tree:
    """What is home of it, or what its own box has, as data to push."""
    try:
        run = store.load(output.run_id)
    except UnknownRun:
        raise UserError(
            f"neither the box nor this machine knows the run {output.run_id}",
            meaning=NOTHING,
            hint="gpurun list shows the runs that this machine knows.",
        ) from None
    found = _at_home(run, output.path)
    if found is None:
        found = _bring_home(link, run, output, report)
    else:
        report.note(f"{output} is home: it is sent from here")
    return _tree(run.outputs_here, place, output.path, found)


def _at_home(run: Run, path: str) -> dict[str, str] | None:
    """The sha256 of the files that fetches have brought of it, by path; None where that is not all of it."""
    verified = _below(Receipt(run.outputs_here).verified().items(), path)
    if run.fetched_at is not None or path in verified:
        return verified or None
    listed = files.read_json(run.outputs_here / path / "manifest.json").get("files")
    named = [each.get("path") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return verified if named and all(f"{path}/{name}" in verified for name in named) else None


def _bring_home(link: Link, run: Run, output: RunOutput, report: Reporter) -> dict[str, str]:
    """Fetches it from the box that the run is on. Raises UserError where that has no such output."""
    if run.host == link.host.typed:
        raise UserError(
            f"{run.run_id} is not on {run.host} any more, and {output.path} of it was not fetched",
            meaning=NOTHING,
            hint=f"gpurun status {run.run_id} shows what is known of it.",
        )
    report.note(f"{output} is on {run.host}: it is brought here, and from here to {link.host.typed}")
    with connect_to_run(run, report) as other, exclusively(run):
        manifest = other.agent.manifest(run.run_id, everything=True)
        needed = [artifact for artifact in manifest.files if _is_below(artifact.path, output.path)]
        if not needed or not _is_whole(manifest, output.path):
            over = manifest.complete
            raise UserError(
                f"{run.run_id} has {'no output' if over else 'not completed'} {output.path}{'' if over else ' yet'}",
                meaning=NOTHING,
                hint=f"gpurun checkpoints {run.run_id} lists its checkpoints; a finished recipe has models/best.",
            )
        bring(other, run, [needed], run.outputs_here, report, lambda batch: note_place(run, run.outputs_here))
    return {artifact.path: artifact.sha256 for artifact in needed}


def _is_whole(manifest: Manifest, path: str) -> bool:
    """Whether nothing will be added: the run is over, or the folder has its own manifest, which is written last, or it is a file."""
    return manifest.complete or any(each.path in (path, f"{path}/manifest.json") for each in manifest.files)


def _below(entries: Iterable[tuple[str, str]], top: str) -> dict[str, str]:
    return {path: value for path, value in entries if _is_below(path, top)}


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def _tree(outputs: Path, place: str, path: str, sha256: dict[str, str]) -> Tree:
    """The verified files as they are pushed. Raises UserError where one is gone since."""
    member = os.path.basename(path) if path in sha256 else None
    root = outputs / path if member is None else (outputs / path).parent
    contents = {
        os.path.relpath(each, path) if member is None else member: bytes.fromhex(known)
        for each, known in sha256.items()
    }
    try:
        entries = [_entry(root, name) for name in sorted(contents)]
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}", meaning=NOTHING, hint="gpurun fetch brings it again.") from None
    selection = Selection(root, entries, [])
    return Tree(place, selection, digest(selection, contents), member, contents, fixed=True)


def _entry(root: Path, name: str) -> Entry:
    about = os.lstat(root / name)
    return Entry(name, about.st_size, about.st_mtime_ns, about.st_mode & 0o777, "file")
