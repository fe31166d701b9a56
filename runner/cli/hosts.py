"""``gpurun hosts``."""

from __future__ import annotations

import shlex
import time

import click

from runner.cli import options, output
from runner.cli.table import print_rows


@click.group(
    "hosts",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  gpurun hosts\n  gpurun hosts default root@1.2.3.4       for submit and check without --host\n"
    "  gpurun hosts forget [1.2.3.4]:41022     after the box was replaced\n"
    "  gpurun hosts move root@1.2.3.4:41022 root@1.2.3.4:41377\n"
    "  gpurun hosts set root@1.2.3.4 --volume /workspace\n"
    "  gpurun hosts set root@1.2.3.4 --destroy 'vastai destroy instance 12345'\n"
    "  gpurun hosts use-gpu root@8gpus 3       after it was set aside, and mended\n"
    "  gpurun hosts forget local               ends the sshd of the embedded box",
)
@options.json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the known boxes and their pinned keys; * is the default one."""
    if context.invoked_subcommand is not None:
        return
    from runner.workflow.hosts import known

    hosts = known()
    if as_json:
        from runner.cli.as_document.hosts import hosts_document

        return output.print_document(hosts_document(hosts))
    rows = [
        [
            "*" if host.default else "",
            host.typed,
            host.known_as,
            _when(host.seen_at),
            host.volume or "",
            " ".join(host.fingerprints) or "not pinned",
        ]
        for host in hosts
    ]
    print_rows(("", "host", "pinned as", "seen", "volume", "fingerprint"), rows, "no host is known yet")


@command.command("forget")
@click.argument("name", shell_complete=options.complete_host)
@options.json_option
@click.pass_context
def forget_command(context: click.Context, name: str, as_json: bool) -> None:
    """Forget the pinned key of a host, so that its next key is shown and pinned."""
    from runner.workflow.hosts import forget

    removed = forget(name)
    if as_json or _is_asked_of_the_group(context):
        return output.print_document({"host": name, "keys_removed": removed})
    click.echo(f"{name} is forgotten ({removed} key{'' if removed == 1 else 's'}).")


@command.command("default")
@click.argument("name", required=False, shell_complete=options.complete_host)
@click.option("--none", is_flag=True, help="Have no default host any more.")
@options.json_option
@click.pass_context
def default_command(context: click.Context, name: str | None, none: bool, as_json: bool) -> None:
    """Set the host that submit and check take without --host, or show it.

    The variable GPURUN_HOST comes before it.
    """
    from runner.workflow.hosts import set_default

    if name and none:
        raise click.UsageError("give a host or --none, not both")
    if name or none:
        set_default(name)
    host, source = options.default_host()
    if as_json or _is_asked_of_the_group(context):
        return output.print_document({"host": host, "source": source})
    click.echo(f"{host} ({source})" if host else "no default host: submit and check need --host")


@command.command("move")
@click.argument("old", shell_complete=options.complete_host)
@click.argument("new")
@options.json_option
@click.pass_context
def move_command(context: click.Context, old: str, new: str, as_json: bool) -> None:
    """Let all runs of a box follow it to its new address.

    Asks the box at NEW whether it is the one that was at OLD; if it is another one, nothing changes (exit 3).
    """
    from runner.domain.quantities import pluralise
    from runner.workflow.hosts import move_host

    as_json = as_json or _is_asked_of_the_group(context)
    moved = move_host(old, new, output.reporter(as_json))
    if as_json:
        from runner.cli.as_document.hosts import move_document

        return output.print_document(move_document(moved))
    click.echo(f"{moved.old} is {moved.new} now: {pluralise(len(moved.runs), 'run')} followed.")
    for run_id in moved.left:
        click.echo(f"not on that box, so its record still names {moved.old}: {run_id}", err=True)


@command.command("set")
@click.argument("name", shell_complete=options.complete_host)
@click.option("--volume", metavar="DIR", help="The folder on the box that holds .gpurun-box.")
@click.option(
    "--destroy",
    metavar="COMMAND",
    help="What destroys the box: run on this machine, without a shell, by done --destroy.",
)
@options.json_option
@click.pass_context
def set_command(context: click.Context, name: str, volume: str | None, destroy: str | None, as_json: bool) -> None:
    """Set the folder on a box that gpurun works in, or the command that destroys the box."""
    from runner.workflow.hosts import set_destroy, set_volume

    if volume is None and destroy is None:
        raise click.UsageError("nothing to set: give --volume or --destroy")
    if volume is not None:
        set_volume(name, volume)
    command = set_destroy(name, destroy) if destroy is not None else ()
    if as_json or _is_asked_of_the_group(context):
        return output.print_document({"host": name, "volume": volume, "destroy": list(command) or None})
    if volume is not None:
        click.echo(f"{name}: gpurun works in {volume}/.gpurun-box from now on.")
    if command:
        click.echo(f"{name}: gpurun done --destroy runs {shlex.join(command)} on this machine.")


@command.command("use-gpu")
@click.argument("name", shell_complete=options.complete_host)
@click.argument("gpu", type=click.IntRange(0, 1023))
@options.json_option
@click.pass_context
def use_gpu_command(context: click.Context, name: str, gpu: int, as_json: bool) -> None:
    """Give a GPU to runs again that was set aside because two runs failed on it.

    gpurun list --host NAME says which GPUs are set aside. A restart of the box ends it too.
    """
    from runner.workflow.hosts import use_gpu

    as_json = as_json or _is_asked_of_the_group(context)
    was_set_aside = use_gpu(name, gpu, output.reporter(as_json))
    if as_json:
        return output.print_document({"host": name, "gpu": gpu, "was_set_aside": was_set_aside})
    click.echo(f"GPU {gpu} is given to runs again." if was_set_aside else f"GPU {gpu} was not set aside.")


def _is_asked_of_the_group(context: click.Context) -> bool:
    """Whether ``--json`` was given before the subcommand: ``gpurun hosts --json forget NAME``."""
    return bool(context.parent and context.parent.params.get("as_json"))


def _when(seen_at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seen_at)) if seen_at else "never"
