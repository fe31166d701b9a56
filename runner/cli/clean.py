"""``gpurun clean``."""

from __future__ import annotations

from dataclasses import asdict

import click

from runner.cli import options


@click.command(
    "clean",
    epilog="\b\nExamples:\n  gpurun clean --host root@box            shows what may go, then asks\n"
    "  gpurun clean --host root@box --yes\n  gpurun clean --host root@box RUN        this run too, although it is not home\n"
    "  gpurun clean --host root@box --experiment mayors --keep 1",
)
@click.argument("runs", nargs=-1, metavar="[RUN...]")
@options.host_option(required=False)
@click.option("--dry-run", is_flag=True, help="Only show.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option(
    "--all", "everything", is_flag=True, help="Environments, data and caches too, even if a later run could use them."
)
@click.option(
    "--experiment", metavar="NAME", help="The runs of an experiment that are over, but the first --keep that succeeded."
)
@click.option(
    "--keep", type=click.IntRange(min=0), default=1, show_default=True, help="With --experiment: how many stay."
)
@options.json_option
def command(
    runs: tuple[str, ...],
    host: str | None,
    dry_run: bool,
    yes: bool,
    everything: bool,
    experiment: str | None,
    keep: int,
    as_json: bool,
) -> None:
    """What gpurun may delete on a box: never a live run, never a stranger's file."""
    from runner import store
    from runner.cli.render import size
    from runner.workflow.clean import clean, experiment_leftovers
    from runner.workflow.connect import host_of, to_host

    if as_json and not (yes or dry_run):
        raise click.UsageError("--json asks nothing: add --dry-run or --yes")
    named = [store.find(name).run_id for name in runs]
    if experiment is not None:
        named += experiment_leftovers(experiment, keep)
    only_named = experiment is not None
    where = host or store.find(named[0] if named else None).host
    report = options.reporter(as_json)
    with to_host(host_of(where), report) as link:
        found = clean(link, report, dry_run=True, run_ids=named, everything=everything, only_named=only_named)
        if not as_json:
            for item in found.removed:
                options.say_untrusted(f"  {size(item.bytes):>10}  {item.path}")
            for item in found.kept:
                options.say_untrusted(f"  {'kept':>10}  {item.path}  {item.why}")
            click.echo(f"{len(found.removed)} things, {size(found.bytes)}, may go.")
        if found.removed and not dry_run and (yes or click.confirm("Delete them on the box?", err=True)):
            found = clean(link, report, dry_run=False, run_ids=named, everything=everything, only_named=only_named)
            report.note(f"deleted {size(found.bytes)}")
    if as_json:
        options.print_json({"dry_run": dry_run, **asdict(found)})
