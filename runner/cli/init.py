"""``gpurun init``."""

from __future__ import annotations

import click

from runner.cli import options, output


@click.command(
    "init",
    epilog="\b\nExamples:\n  gpurun init\n  gpurun init legal && gpurun check jobs/legal.yaml --host root@1.2.3.4",
)
@click.argument("name", required=False)
@options.json_option
def command(name: str | None, as_json: bool) -> None:
    """Write a commented job file for the code in this folder.

    The file is jobs/NAME.yaml, or NAME.yaml if there is no folder jobs. Command, packages, data and outputs are guessed from the names of
    files and from the source of your program, which is read and not run.
    """
    from pathlib import Path

    from runner.jobfile.drafting.draft import write_draft

    file, findings = write_draft(Path.cwd(), name)
    if as_json:
        return output.print_document({"file": str(file), "findings": findings.notes})
    for note in findings.notes:
        click.echo(f"  {note}", err=True)
    click.echo(
        f"Wrote {file}. Look it over, then:\n  gpurun check {file} --host HOST\n  gpurun submit {file} --host HOST"
    )
