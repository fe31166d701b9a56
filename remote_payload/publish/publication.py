"""One publication: prepared (nothing is written anywhere), then carried out."""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_payload.publish.card import Base, finish_card, look_up_base, read_model
from remote_payload.publish.contents import CARD, Contents, Part, gather, is_checkpoint
from remote_payload.publish.evaluation import Evaluated
from remote_payload.publish.problem import PublishProblem
from remote_payload.publish.report import FileReport, PublishReport
from remote_payload.publish.repository import Comparison, Remote, compare, look
from remote_payload.publish.scrub import Scrubber
from remote_payload.publish.trouble import as_problem

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Wish:
    """What is to be published: a model's folder, other forms of it beside, and where. ``title`` names the model on a card that it lacks."""

    folder: Path
    repository: str
    title: str
    public: bool = False
    merged: Path | None = None  # a folder with the whole model, published below merged/
    gguf: Path | None = None  # a folder with .gguf files, published beside the model
    evaluated: Evaluated | None = None  # what gpurun evaluate measured: its table goes into the card

    @property
    def parts(self) -> list[Part]:
        """The folders, and where in the repository their files go."""
        others = [Part(self.merged, "merged/", True)] if self.merged else []
        return [Part(self.folder), *others, *([Part(self.gguf, "", True, (".gguf", "Modelfile"))] if self.gguf else [])]


@dataclass(frozen=True)
class Publication:
    """What would go, beside what is there. ``remarks`` are for whoever publishes."""

    wish: Wish
    contents: Contents
    remote: Remote | None
    comparison: Comparison
    base: Base | None
    licence: str
    remarks: tuple[str, ...]

    @property
    def private(self) -> bool:
        """Whether only the owner and those who were let in can read it."""
        return self.remote.private if self.remote else not self.wish.public

    def report(self, commit: str | None = None) -> PublishReport:
        """The same as plain data; ``commit`` is the new revision, None where nothing was uploaded."""
        return PublishReport(
            repository=self.wish.repository,
            private=self.private,
            commit=commit,
            files=tuple(
                FileReport(file.path, file.size, self.comparison.state(file.path)) for file in self.contents.files
            ),
            removed=self.comparison.stale,
            left_out=self.contents.left_out,
            base=self.base.name if self.base else None,
            licence=self.licence,
            remarks=self.remarks,
        )


def run_publication(
    api: HfApi, wish: Wish, *, token: str | None, read_token: str | None = None, secrets: Sequence[str] = (),
    update: bool = False, dry_run: bool = False,
) -> PublishReport:  # fmt: skip
    """All of it; with ``dry_run`` nothing is written. ``token`` and the other arguments are as in ``prepare`` and ``publish``.

    Raises PublishProblem, for an answer of the Hub and a lost network too.
    """
    try:
        publication = prepare(api, wish, token=token, read_token=read_token, secrets=secrets)
        if dry_run or token is None or publication.report().nothing_to_do:
            return publication.report()
        return publication.report(publish(api, publication, token=token, update=update))
    except Exception as error:
        raise as_problem(error, wish.repository) from None


def prepare(
    api: HfApi, wish: Wish, *, token: str | None, read_token: str | None = None, secrets: Sequence[str] = ()
) -> Publication:
    """Reads the folder and the repository. ``token`` sees the repository, ``read_token`` the base model; no file may hold ``secrets``.

    Raises PublishProblem, and the client's errors when the Hub cannot be asked.
    """
    tokens = [each for each in (token, read_token) if each]
    scrubber = Scrubber([*secrets, *tokens], [wish.folder, *(part.folder for part in wish.parts)])
    contents = gather(wish.parts, scrubber, public=wish.public)
    configs = {name: _json(wish.folder / name) for name in ("gpurun.json", "adapter_config.json", "config.json")}
    _refuse_checkpoint(wish.folder)
    adapter = configs["adapter_config.json"] if (wish.folder / "adapter_config.json").is_file() else None
    model = read_model(configs["gpurun.json"], adapter, configs["config.json"])
    base = look_up_base(api, model.base_on_hub, read_token) if model.base_on_hub else None
    text = (wish.folder / CARD).read_text("utf-8") if (wish.folder / CARD).is_file() else None
    card, remarks = finish_card(
        text and scrubber.text(text), model, base, wish.title, _forms(contents, wish), wish.evaluated
    )
    contents = contents.with_card(card)
    remote = look(api, wish.repository, token)
    _refuse_other_visibility(wish, remote)
    licence = next(
        (line.partition(":")[2].strip() for line in card.splitlines() if line.startswith("license:")), "other"
    )
    return Publication(wish, contents, remote, compare(contents, remote), base, licence, tuple(remarks))


def publish(api: HfApi, publication: Publication, *, token: str, update: bool = False) -> str:
    """Uploads and gives the commit; files that are there already are not sent again.

    An interrupted upload goes on when it is repeated. Raises PublishProblem where the repository has other content and ``update`` is not
    given, and the client's errors.
    """
    if not update:
        refuse_conflicts(publication)
    name, comparison = publication.wish.repository, publication.comparison
    if publication.remote is None:
        api.create_repo(name, private=publication.private, exist_ok=True, token=token)
    # A folder with what is published, for the client: links to large files, and the texts as they are published.
    with tempfile.TemporaryDirectory(prefix="gpurun-publish-") as staged:
        for file in publication.contents.files:
            place = Path(staged) / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if file.content is not None:
                place.write_bytes(file.content)
            elif file.source is not None:
                place.symlink_to(file.source.absolute())
        done = api.upload_folder(
            repo_id=name,
            folder_path=staged,
            commit_message=f"{publication.wish.title}, published with gpurun",
            # Nobody else's commit of this very moment is overwritten.
            parent_commit=publication.remote.commit if publication.remote else None,
            delete_patterns=[glob.escape(path) for path in comparison.stale] or None,
            token=token,
        )
    return str(done.oid)


def refuse_conflicts(publication: Publication) -> None:
    """Raises PublishProblem where the repository has other content than what would be published."""
    found = publication.comparison
    if not found.conflicts:
        return
    differing = [f"  {path}  differs" for path in found.differing]
    stale = [f"  {path}  is there, and not here" for path in found.stale]
    raise PublishProblem(
        "\n".join([f"{publication.wish.repository} has other content already:", *differing, *stale]),
        hint="--update makes a new commit on top of it (the old one stays in the history); or take another name.",
    )


def _refuse_other_visibility(wish: Wish, remote: Remote | None) -> None:
    if remote is not None and not remote.private and not wish.public:
        raise PublishProblem(
            f"{wish.repository} is there already, and it is public: everybody could read what is published there",
            hint="--public says that this is meant; or take another name.",
        )
    if remote is not None and remote.private and wish.public:
        raise PublishProblem(
            f"{wish.repository} is there already, and it is private",
            hint="Publish without --public, and change who may see it on the repository's settings page.",
        )


def _refuse_checkpoint(folder: Path) -> None:
    if is_checkpoint(folder):
        raise PublishProblem(
            f"{folder.name} is a checkpoint, from which training goes on: its weights have names that no other library knows",
            hint="Publish it as RUN:CHECKPOINT, or models/best of the run.",
        )


def _forms(contents: Contents, wish: Wish) -> list[str]:
    """Lines for the card about what lies beside the model."""
    lines = []
    if wish.merged:
        lines.append(f'`merged/`: the whole model, `from_pretrained("{wish.repository}", subfolder="merged")`')
    if wish.gguf:
        lines += [f"`{file.path}`: for llama.cpp and Ollama" for file in contents.files if file.path.endswith(".gguf")]
    return lines


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
