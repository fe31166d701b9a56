"""Where gpurun works on a box, how large that place is, and what deletes it: told by ``check`` and ``submit``."""

from __future__ import annotations

from runner.domain.answers.box import Box, Place
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size
from runner.host_notes import host_notes, note_instance, note_volume
from runner.transport.link import Link
from runner.workflow.submission.checks import Finding

NAMES = {"runpod": "RunPod pod", "vast": "vast.ai instance", "lambda": "Lambda instance"}
WHOLE_CLUSTER = 50e12  # bytes; a network filesystem of this size reports more than the part of it that was rented


def find_place(box: Box) -> list[Finding]:
    """The one finding about the place; none where the box did not say."""
    place = box.place
    if place is None:
        return []
    said = f"{_which(place)}, {_size(box, place)}: {_kept(place)}"
    if place.lost_by != "stop":
        return [Finding("place", "ok", said)]
    if place.volume:
        hint = (
            f"{place.volume} survives a stop. To work there from now on: gpurun hosts set HOST --volume {place.volume}"
        )
    else:
        hint = "Fetch what a run has made before you stop the box."
    return [Finding("place", "warn", said, hint)]


def remember(link: Link, box: Box, volume: str | None) -> None:
    """Notes the folder that was told with ``--volume``, now that the box has worked in it, and what the box is at its provider."""
    if volume:
        note_volume(link.host, link.agent.volume or volume)
    if box.place and box.place.box_id:
        noted = host_notes().get(link.host.typed)
        if noted is None or (noted.provider, noted.instance) != (box.place.kind, box.place.box_id):
            note_instance(link.host, box.place.kind, box.place.box_id)


def tell_place(link: Link, box: Box, volume: str | None, report: Reporter) -> None:
    """Says in one line where gpurun works, and what to do if a stop deletes it; notes a ``volume`` that was told."""
    remember(link, box, volume)
    for finding in find_place(box):
        if finding.verdict == "ok":
            report.note(f"place: {finding.said}")
        else:
            report.warn(f"place: {finding.said}. {finding.hint}")


def _which(place: Place) -> str:
    box = NAMES.get(place.kind, "machine" if place.kind == "machine" else "container")
    if place.own_mount:
        return f"{place.folder}, {'a network volume' if place.network else 'a volume'} of this {box}"
    return f"{place.folder}, on the disk of this {box}"


def _size(box: Box, place: Place) -> str:
    if place.network and box.disk_total > WHOLE_CLUSTER:
        return "whose size the box does not report (it counts the provider's whole cluster)"
    return f"{format_size(box.disk_free)} of {format_size(box.disk_total)} free"


def _kept(place: Place) -> str:
    name = NAMES.get(place.kind, "machine")
    if place.lost_by == "stop":
        return "a stop deletes all of it"
    if place.lost_by == "volume":
        return f"kept when the {name} is stopped or destroyed, lost when the volume is deleted"
    if place.lost_by == "destroy":
        pause = "restarted" if place.kind in ("lambda", "machine") else "stopped"
        return f"kept when the {name} is {pause}, lost when it is destroyed"
    return "whether a stop keeps it is not known of this provider, so count on nothing that is not home"
