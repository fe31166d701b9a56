"""``gpurun publish``: a model's folder here, or on a run's box, becomes a repository of the Hub, or its next revision."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from remote_payload.publish.contents import is_checkpoint
from remote_payload.publish.report import REPOSITORY
from remote_payload.settings.training import WRITE_TOKEN
from runner.domain import places
from runner.domain.answers.reading import (
    Fields,
    boolean,
    list_of,
    matching,
    one_of,
    optional,
    string,
    text,
    whole,
)
from runner.domain.errors import ArtifactError, HostError, HubAccessDenied, UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean_lines
from runner.files import writing
from runner.hub import HubUnreachable, find_token, write_identity
from runner.hub.client import api, endpoint
from runner.local_model.model_folder import read_model_folder
from runner.workflow.connect import connect_to_run
from runner.workflow.exporting.export import MERGED
from runner.workflow.exporting.merged import finish
from runner.workflow.inference.base_model import bring_base
from runner.workflow.inference.targets import BEST, Meant, TargetHere, path_in_outputs

if TYPE_CHECKING:
    from remote_payload.publish.evaluation import Evaluated
    from remote_payload.publish.problem import Kind, PublishProblem
    from remote_payload.publish.publication import Wish
    from remote_payload.publish.report import PublishReport

MODULE = "remote_payload.recipes.publish"


@dataclass(frozen=True)
class Published:
    """What was published, or what would be. ``folder`` is the model's, on this machine or in the run's outputs on its box."""

    run: Run | None
    folder: str
    page: str
    report: PublishReport


@contextmanager
def publishable(model: TargetHere, title: str, report: Reporter) -> Iterator[Path]:
    """The folder to publish: the model's own, or of a checkpoint the finished model, as long as the context lasts.

    Raises as ``finish`` does: nothing is published that predicts something else than the checkpoint.
    """
    folder = model.folder.absolute()
    if not is_checkpoint(folder):
        yield folder
        return
    with report.stage(f"inspect {folder.name}"):
        found = read_model_folder(folder)
    base = bring_base(found, model.run, report)
    with writing(places.home()):  # and not where /tmp lies: that may be in memory, and a model is large
        places.home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=places.home()) as place:
        finished = finish(found, base, Path(place) / folder.name, title, report, run=model.run)
        agreed = f"{finished.comparison.agree} of {finished.comparison.answers}"
        report.note(f"{folder.name} as a finished model: {agreed} answers as the checkpoint's own, here")
        yield Path(place) / folder.name


def evaluated_of(
    folder: Path | None, target: str, *names: str, run: Run | None, checkpoint: str = ""
) -> Evaluated | None:
    """What ``gpurun evaluate`` wrote to ``folder``, without paths of this machine and secrets. The model may be called there as it was
    typed, by ``names``, or as its run; ``checkpoint`` is its own name where it is one. Raises UserError."""
    from remote_payload.publish.evaluation import read_evaluation
    from remote_payload.publish.problem import PublishProblem
    from remote_payload.publish.scrub import Scrubber

    if folder is None:
        return None
    step = f":{checkpoint}" if checkpoint else ""
    known = (f"{run.run_id}{step}", f"{run.job.name}{step}") if run else ()
    secrets = [*_secrets(run), *filter(None, [find_token(), os.environ.get(WRITE_TOKEN)])]
    try:
        return read_evaluation(folder, (target, *names, *known), Scrubber(secrets, [folder]))
    except PublishProblem as problem:
        raise as_error(problem) from None


def _secrets(run: Run | None) -> list[str]:
    return [os.environ.get(name, "") for name in run.job.secrets] if run else []


def exported(folder: Path, *, merged: bool, gguf: bool) -> tuple[Path | None, Path | None]:
    """The folders with the merged model and with the .gguf files of an export in ``folder``; None for what is not wanted.

    Raises ArtifactError for one that is not there.
    """
    whole = folder / MERGED
    if merged and not whole.is_dir():
        raise _not_exported(whole, "--merged")
    files = sorted({file.parent for file in folder.rglob("*.gguf")}) if gguf else []
    if gguf and len(files) != 1:
        raise _not_exported(folder / "*.gguf", "--gguf")
    return whole if merged else None, files[0] if gguf else None


def _not_exported(wanted: Path, option: str) -> ArtifactError:
    return ArtifactError(
        f"there is no {wanted}",
        meaning="Nothing was published.",
        hint=f"Make it with gpurun export {option}, or say with --exports DIR where it lies.",
    )


def publish_here(
    model: TargetHere, wish: Wish, report: Reporter, typed: Callable[[], str | None], *, update: bool, dry_run: bool
) -> Published:
    """Publishes from this machine, or with ``dry_run`` only says what would go, for which a token that reads is enough.

    ``typed`` asks for a token that writes. Raises UserError, HubAccessDenied and HubUnreachable.
    """
    from remote_payload.publish.problem import PublishProblem
    from remote_payload.publish.publication import run_publication

    _check_name(wish.repository)
    run = model.run
    read_token = find_token()
    token = read_token if dry_run else write_identity(typed).token
    try:
        with report.stage(f"{'look at' if dry_run else 'publish to'} {wish.repository}"):
            found = run_publication(
                api(), wish, token=token, read_token=read_token, secrets=_secrets(run), update=update, dry_run=dry_run
            )
    except PublishProblem as problem:
        raise as_error(problem) from None
    return _published(run, str(model.folder), found, report)


def publish_on_box(
    meant: Meant,
    repository: str,
    report: Reporter,
    typed: Callable[[], str | None],
    *,
    public: bool,
    update: bool,
    dry_run: bool,
    evaluation: Path | None = None,
) -> Published:
    """Publishes ``models/best`` of a run, or its checkpoint ``RUN:CHECKPOINT``, from its box: the weights do not come home.

    The token travels on the standard input of the process there, and is in no file, argument or environment. Raises as
    ``publish_here``, and HostErrors.
    """
    from remote_payload.recipes.publish import Order

    _check_name(repository)
    run = meant.run
    if run is None or meant.folder:
        raise UserError(
            f"{meant.named} is no run, so no box has it", hint="Leave --on-box out, or name a run: gpurun list."
        )
    path = path_in_outputs(meant)
    checkpoint = "" if meant.checkpoint == BEST else meant.checkpoint
    evaluated = evaluated_of(evaluation, meant.named, run=run, checkpoint=checkpoint)
    token = find_token() if dry_run else write_identity(typed).token
    with connect_to_run(run, report) as link:
        folder = f"{link.paths.run(run.run_id).outputs}/{path}"
        title = repository.rpartition("/")[2]
        order = Order(
            folder,
            repository,
            title,
            endpoint(),
            token,
            public,
            update,
            dry_run,
            asdict(evaluated) if evaluated else None,
        )
        line = order.line()
        with report.stage(f"{'look at' if dry_run else 'publish to'} {repository}, on the box"):
            found = _answer(link.agent.sample(run.run_id, MODULE, [], [line]))
    if found.repository != repository:
        raise ArtifactError(f"the box says that it published to {found.repository}, not to {repository}")
    return _published(run, path, found, report)


def as_error(problem: PublishProblem) -> UserError | HostError:
    """The same for the command line."""
    if problem.kind == "input":
        return UserError(problem.message, meaning=problem.meaning, hint=problem.hint)
    error = HubAccessDenied if problem.kind == "refused" else HubUnreachable
    return error(problem.message, meaning=problem.meaning, hint=problem.hint, retryable=error is HubUnreachable)


def _published(run: Run | None, folder: str, found: PublishReport, report: Reporter) -> Published:
    for remark in found.remarks:
        report.warn(remark)
    return Published(run, folder, f"{endpoint()}/{found.repository}", found)


def _check_name(repository: str) -> None:
    if not re.fullmatch(REPOSITORY, repository):
        raise UserError(
            f"{repository!r} is no repository's name", hint="Write it as owner/name, such as me/legal-lora."
        )


def _answer(lines: Iterable[str]) -> PublishReport:
    """The report among the lines that the box prints. Raises the box's problem, and ArtifactError where it says neither."""
    from remote_payload.publish.problem import PublishProblem

    found: PublishReport | None = None
    for line in lines:
        try:
            value = json.loads(line) if line.startswith("{") else None
            if isinstance(value, dict) and "problem" in value:
                fields = Fields(value["problem"])
                kind = cast("Kind", fields("kind", one_of(("input", "refused", "unreachable"))))
                words = {name: clean_lines(fields(name, string), 4000) for name in ("message", "meaning", "hint")}
                raise as_error(
                    PublishProblem(words["message"], kind=kind, meaning=words["meaning"], hint=words["hint"])
                )
            if isinstance(value, dict) and "published" in value:
                found = _report(Fields(value["published"]))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"the box printed an impossible answer: {error}") from None
    if found is None:
        raise ArtifactError(
            "the box ended without an answer", hint="Publish from here: gpurun fetch, then the same without --on-box."
        )
    return found


def _report(fields: Fields) -> PublishReport:
    from remote_payload.publish.report import FileReport, LeftOut, PublishReport

    def file(value: object) -> FileReport:
        each = Fields(value)
        return FileReport(each("path", text), each("size", whole), each("state", one_of(("new", "same", "differs"))))

    def left(value: object) -> LeftOut:
        each = Fields(value)
        return LeftOut(each("path", text), each("reason", text))

    return PublishReport(
        repository=fields("repository", matching(re.compile(REPOSITORY))),
        private=fields("private", boolean),
        commit=fields("commit", optional(text)),
        files=fields("files", list_of(file)),
        removed=fields("removed", list_of(text)),
        left_out=fields("left_out", list_of(left)),
        base=fields("base", optional(text)),
        licence=fields("licence", text),
        remarks=fields("remarks", list_of(text)),
    )
