"""``gpurun hosts``."""

from __future__ import annotations

import time

import click

from runner.cli import options, output
from runner.cli.table import print_rows


@click.group(
    "hosts",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  gpurun hosts\n  gpurun hosts forget [1.2.3.4]:41022     after the box was replaced\n"
    "  gpurun hosts set root@1.2.3.4 --volume /workspace\n  gpurun hosts forget local               ends the sshd of the embedded box",
)
@options.json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the known boxes and their pinned keys."""
    if context.invoked_subcommand is not None:
        return
    from runner.workflow.hosts import known

    hosts = known()
    if as_json:
        from runner.cli.as_document import hosts_document

        return output.print_document(hosts_document(hosts))
    rows = [
        [host.typed, host.known_as, _when(host.seen_at), host.volume or "", " ".join(host.fingerprints) or "not pinned"]
        for host in hosts
    ]
    print_rows(("host", "pinned as", "seen", "volume", "fingerprint"), rows, "no host is known yet")


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


@command.command("set")
@click.argument("name", shell_complete=options.complete_host)
@click.option("--volume", required=True, metavar="DIR", help="The folder on the box that holds .gpurun-box.")
@options.json_option
@click.pass_context
def set_command(context: click.Context, name: str, volume: str, as_json: bool) -> None:
    """Set the folder on a box that gpurun works in."""
    from runner.workflow.hosts import set_volume

    set_volume(name, volume)
    if as_json or _is_asked_of_the_group(context):
        return output.print_document({"host": name, "volume": volume})
    click.echo(f"{name}: gpurun works in {volume}/.gpurun-box from now on.")


def _is_asked_of_the_group(context: click.Context) -> bool:
    """Whether ``--json`` was given before the subcommand: ``gpurun hosts --json forget NAME``."""
    return bool(context.parent and context.parent.params.get("as_json"))


def _when(seen_at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seen_at)) if seen_at else "never"
