"""``gpurun publish``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.cli.audience import is_person

if TYPE_CHECKING:
    from runner.workflow.publish import Published

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(
    "publish",
    epilog="\b\nExamples:\n"
    "  gpurun publish legal me/legal-lora --dry-run   what would go and what stays\n"
    "  gpurun publish legal me/legal-lora             private, with the run's card\n"
    "  gpurun publish legal me/legal-lora --update    over what is there\n"
    "  gpurun publish legal me/legal-lora --on-box    the weights go from there\n"
    "  gpurun publish legal:step-000100 me/early      a checkpoint, as a model\n"
    "  gpurun publish ./my-adapter me/mine --public --merged",
)
@click.argument("target", metavar="TARGET", shell_complete=options.complete_target)
@click.argument("repository", metavar="REPO")
@click.option("--public", is_flag=True, help="Everybody may read it. Without it a new repository is private.")
@click.option("--update", is_flag=True, help="Go on although the repository has other content: a new commit on top.")
@click.option("--merged", is_flag=True, help="The merged model of an export too, below merged/.")
@click.option("--gguf", is_flag=True, help="The .gguf files of an export too, with their Modelfile.")
@click.option(
    "--exports",
    type=FOLDER,
    metavar="DIR",
    help="The export's folder. Without it NAME-export, here, as of gpurun export.",
)
@click.option("--evaluation", type=FOLDER, metavar="DIR", help="Put the table of this gpurun evaluate into the card.")
@click.option(
    "--on-box", is_flag=True, help="Publish a run's model, or RUN:CHECKPOINT, from its box: no weights come home."
)
@click.option("--dry-run", is_flag=True, help="List what would be published, and upload nothing.")
@options.json_option
def command(
    target: str, repository: str, public: bool, update: bool, merged: bool, gguf: bool, exports: Path | None,
    evaluation: Path | None, on_box: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Publish a model on the Hugging Face Hub: private, with its card.

    TARGET is a fetched run, a checkpoint of it, or the folder of a model, REPO a name such as me/legal-lora.

    An interrupted upload goes on when the command is repeated. What is there with other content is overwritten only with --update. The
    token that writes is HF_PUBLISH_TOKEN, or it is asked for; it is kept nowhere.
    """
    from remote_payload.publish.contents import is_checkpoint
    from remote_payload.publish.publication import Wish
    from runner.domain.errors import UserError
    from runner.workflow.exporting.export import default_folder
    from runner.workflow.inference.targets import meaning_of, trained_target
    from runner.workflow.publish import evaluated_of, exported, publish_here, publish_on_box, publishable

    if as_json or not is_person(sys.stderr):
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    report = output.reporter(as_json)
    if on_box:
        if merged or gguf:
            raise UserError("--merged and --gguf name what lies on this machine", hint="Leave these or --on-box out.")
        meant, told = meaning_of(target), {"public": public, "update": update, "dry_run": dry_run}
        done = publish_on_box(meant, repository, report, _ask_token, **told, evaluation=evaluation)
    else:
        model = trained_target(target)
        forms = exported(exports or default_folder(model), merged=merged, gguf=gguf)
        title, own = repository.rpartition("/")[2], model.folder
        step = own.name if is_checkpoint(own) else ""
        evaluated = evaluated_of(evaluation, model.named, own.name, str(own), run=model.run, checkpoint=step)
        with publishable(model, title, report) as folder:
            wish = Wish(folder, repository, title, public, *forms, evaluated=evaluated)
            done = publish_here(model, wish, report, _ask_token, update=update, dry_run=dry_run)
    if as_json:
        from runner.cli.as_document.publish import publish_document

        return output.print_document(publish_document(done, dry_run=dry_run))
    show(done, dry_run=dry_run)


def show(done: Published, *, dry_run: bool) -> None:
    """Prints what was published, or what would be; last the page's address."""
    from runner.domain.quantities import format_size

    found = done.report
    for file in found.files if dry_run else ():
        output.print_untrusted(f"{file.state:8} {format_size(file.size):>10}  {file.path}")
    for path in found.removed if dry_run else ():
        output.print_untrusted(f"{'removed':8} {'':>10}  {path}")
    for left in found.left_out:
        output.print_untrusted(f"stays here: {left.path} ({left.reason})")
    base = f"base {found.base}, " if found.base else ""
    output.print_untrusted(f"{base}licence {found.licence}, {'private' if found.private else 'public'}")
    amount = f"{len(found.files)} files, {format_size(found.size)}"
    if found.nothing_to_do:
        output.print_untrusted(f"{amount}: nothing to upload, all of it is there already")
    elif dry_run:
        said = "has other content: --update would go on" if found.conflicts else "would be published"
        output.print_untrusted(f"{amount}: {said}")
    else:
        output.print_untrusted(f"published: {amount}")
    output.print_untrusted(done.page)


def _ask_token() -> str | None:
    """A token typed at a terminal, not shown; None where nobody can be asked."""
    if not (is_person(sys.stdin) and is_person(sys.stderr)):
        return None
    typed: str = click.prompt("A Hugging Face token that may write (it is kept nowhere)", hide_input=True, err=True)
    return typed
