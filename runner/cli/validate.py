"""``gpurun validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.domain.job import Job
    from runner.jobfile import Problem


@click.command(
    "validate",
    epilog="\b\nExamples:\n  gpurun validate jobs/*.yaml\n  gpurun validate --schema > job.schema.json     for your editor",
)
@click.argument("jobs", nargs=-1, type=click.Path())
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field of the job for the check."
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of job files, for editors.")
@options.json_option
def command(jobs: tuple[str, ...], overrides: tuple[str, ...], schema: bool, as_json: bool) -> int:
    """Check job files offline.

    Prints each problem as path:line:col: message. Exits with 2 if there is one.
    """
    from runner.jobfile import InvalidJobFile, examine, json_schema

    if schema:
        output.print_json(json_schema())
        return 0
    if not jobs:
        raise click.UsageError("give a job file, or --schema.")
    checked = []
    for path in jobs:
        job, found = examine(path, list(overrides))
        checked.append((path, job, InvalidJobFile(found).problems))
    if as_json:
        from runner.cli.as_document.checks import job_file_part

        output.print_document({"jobs": [job_file_part(*one) for one in checked]})
    else:
        _print(checked)
    return 2 if any(problems for _, _, problems in checked) else 0


def _print(checked: list[tuple[str, Job | None, list[Problem]]]) -> None:
    from runner.jobfile.problems import escaped

    for path, job, problems in checked:
        for problem in problems:
            click.echo(problem)
        if job is not None and not problems:
            click.echo(f"ok  {escaped(path)}  ({job.summary})")
            for warning in job.warnings:
                click.echo(f"warning: {escaped(path)}: {warning}", err=True)
