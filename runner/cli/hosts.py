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
    "  gpurun hosts set root@1.2.3.4 --volume /workspace\n  gpurun hosts forget local               ends the embedded box's sshd",
)
@options.json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Known boxes and their pinned keys."""
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
def forget_command(name: str, as_json: bool) -> None:
    """Unpin a host, so that its next key is shown and pinned anew."""
    from runner.workflow.hosts import forget

    removed = forget(name)
    if as_json:
        return output.print_document({"host": name, "keys_removed": removed})
    click.echo(f"{name} is forgotten ({removed} key{'' if removed == 1 else 's'}).")


@command.command("set")
@click.argument("name", shell_complete=options.complete_host)
@click.option("--volume", required=True, metavar="DIR", help="The folder on the box that holds .gpurun-box.")
@options.json_option
def set_command(name: str, volume: str, as_json: bool) -> None:
    """Note where on a box gpurun works."""
    from runner.workflow.hosts import set_volume

    set_volume(name, volume)
    if as_json:
        return output.print_document({"host": name, "volume": volume})
    click.echo(f"{name}: gpurun works in {volume}/.gpurun-box from now on.")


def _when(seen_at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seen_at)) if seen_at else "never"
