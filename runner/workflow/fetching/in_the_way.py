"""Which files of a fetch are not on this machine yet, and what of the user's own lies where they are to go."""

from __future__ import annotations

from pathlib import Path

from runner.domain.answers.manifest import Artifact
from runner.domain.errors import ArtifactError
from runner.domain.quantities import pluralise
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.fetching.staging import refuse_link
from runner.workflow.fetching.verify import sha256


def not_here(missing: list[Artifact], target: Path, receipt: Receipt) -> list[Artifact]:
    """The files that are not here yet with the right content. Raises ArtifactError where a file of the user's own is in the way."""
    _refuse_files_as_folders(missing, target)
    left, own = [], []
    for artifact in missing:
        path = target / artifact.path
        if receipt.may_replace(artifact):
            left.append(artifact)
        elif _is(path, artifact):
            receipt.note(artifact)
        else:
            own.append(artifact.path)
    if own:
        raise in_the_way(target, own)
    if len(left) < len(missing):
        receipt.save()
    return left


def _refuse_files_as_folders(missing: list[Artifact], target: Path) -> None:
    folders = {parent for artifact in missing for parent in Path(artifact.path).parents if parent.name}
    for folder in sorted(folders):
        refuse_link(target / folder)
    if own := [
        str(folder) for folder in sorted(folders) if (target / folder).exists() and not (target / folder).is_dir()
    ]:
        raise in_the_way(target, own)


def in_the_way(target: Path, own: list[str]) -> ArtifactError:
    """The error for files of the user's own, by their paths below ``target``."""
    return ArtifactError(
        f"{target} has {pluralise(len(own), 'file')} under names that the run uses too, and no fetch put them there: "
        + ", ".join(own[:5]) + (" …" if own[5:] else ""),
        meaning="Nothing was moved there; they are as they were.",
        hint="Move them away, or fetch elsewhere: gpurun fetch --into DIR",
    )  # fmt: skip


def _is(path: Path, artifact: Artifact) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != artifact.size:
        return False
    return sha256(path, artifact.size) == artifact.sha256
