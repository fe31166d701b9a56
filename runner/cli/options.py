"""The options and arguments that several commands share, and their completion."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from runner.domain.progress import Reporter
    from runner.domain.run import Run

F = TypeVar("F", bound=Callable[..., object])
R = TypeVar("R", click.IntRange, click.FloatRange)


class Count(click.IntRange):
    """A number of things: an error names them, where click's own would be "not a valid integer range"."""

    def __init__(self, noun: str, least: int = 0) -> None:
        super().__init__(min=least)
        self.name = f"number of {noun}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Raises the same error for a number that is too small as for a word."""
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            least = f" of at least {self.min:g}" if self.min else ""
            self.fail(f"{str(value)!r} is not a valid {self.name}{least}.", param, ctx)


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The callback of an option that takes a length of time as a job file has it, such as ``90m``: its seconds."""
    from runner.domain.quantities import parse_duration

    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}", ctx, param) from None


def number(bounds: R) -> R:
    """A range whose error and metavar are "number"; click's own are "float range" and "integer range"."""
    bounds.name = "number"
    return bounds


def json_option(function: F) -> F:
    """``--json``: the command prints one JSON document on stdout and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def run_argument(function: F) -> F:
    """``[RUN]``: an id, its unique beginning or ending, or a job's name; without it the latest run."""
    return click.argument("run", required=False, shell_complete=complete_run)(function)


def run_or_sweep_argument(function: F) -> F:
    """``[RUN]`` of a command that takes a sweep too, by its id or its name."""
    return click.argument("run", required=False, shell_complete=complete_run_or_sweep)(function)


def host_option(*, required: bool) -> Callable[[F], F]:
    """``--host``: the address of the box, in any of its forms."""
    text = "user@host[:port], ssh://…, an ssh alias, your provider's ssh line, or local."
    return click.option("--host", required=required, metavar="HOST", help=text, shell_complete=complete_host)


def default_host() -> tuple[str | None, str | None]:
    """The host that is meant where none is typed, and who says so; None and None where nobody does."""
    from runner import host_notes

    if told := os.environ.get("GPURUN_HOST", "").strip():
        return told, "GPURUN_HOST"
    noted = host_notes.default_host()
    return noted, "gpurun hosts default" if noted else None


def _typed_or_default(ctx: click.Context, param: click.Parameter, hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Each host once, in the order typed; without any the default one. Raises MissingParameter where there is none."""
    if hosts or ctx.resilient_parsing:
        return tuple(dict.fromkeys(hosts))
    host, _ = default_host()
    if host is None:
        hint = "Set one for always: gpurun hosts default HOST, or the variable GPURUN_HOST."
        raise click.MissingParameter(hint, ctx, param)
    return (host,)


def hosts_option(function: F) -> F:
    """``--host``, as often as there are boxes; without it the default one."""
    return click.option(
        "--host",
        "hosts",
        multiple=True,
        metavar="HOST",
        help="user@host[:port], ssh://…, an ssh alias, your provider's ssh line, or local. Several: give it several times. "
        "None: GPURUN_HOST, or that of gpurun hosts default.",
        shell_complete=complete_host,
        callback=_typed_or_default,
    )(function)


def answering_options(function: F) -> F:
    """How a language model answers: what is not given (None) is as in its training. The names are those of ``Answering``."""
    for option in (
        click.option(
            "--system-prompt", metavar="TEXT|@FILE", help="Ask with this system message, not with that of training."
        ),
        click.option("--repetition-penalty", type=number(click.FloatRange(0, min_open=True)), help="1 is none."),
        click.option(
            "--top-p",
            type=number(click.FloatRange(0, 1, min_open=True)),
            help="Choose among the most likely tokens of this probability.",
        ),
        click.option("--temperature", type=number(click.FloatRange(0)), help="0 always takes the most likely token."),
        click.option("--max-new-tokens", type=number(click.IntRange(1)), help="The most tokens of an answer."),
    ):
        function = option(function)
    return function


def seed_option(function: F) -> F:
    """``--seed``."""
    bounds = number(click.IntRange(0))
    return click.option(
        "--seed", type=bounds, default=0, show_default=True, help="The same seed gives the same answers."
    )(function)


def moved_host_option(function: F) -> F:
    """``--host`` of a command about a run that exists: the address that its box has now."""
    text = "The box's new address, where it has changed; the run's record follows."
    return click.option("--host", metavar="NEW", help=text, shell_complete=complete_host)(function)


def run_at(run: Run, host: str | None, report: Reporter) -> Run:
    """The run; found on the box at the new address where ``moved_host_option`` was given. Raises RunLost where it is not there."""
    if host is None:
        return run
    from runner.workflow.hosts import find_at

    return find_at(run, host, report)


def beside_options(function: F) -> F:
    """``[RUN]`` or ``--host``: where ``ssh`` and ``exec`` go."""
    text = "A box, and its home folder, instead of a run's."
    host = click.option("--host", metavar="HOST", help=text, shell_complete=complete_host)
    return run_argument(host(json_option(function)))


def job_options(function: F) -> F:
    """The options of every command that takes a job file and a host."""
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a field of the job, such as settings.epochs=1.",
        ),
        click.option(
            "--volume",
            metavar="DIR",
            help="The folder on the box to work in, instead of one that survives a stop; remembered for the host.",
        ),
        click.option(
            "--strict", is_flag=True, help="Refuse a host without a pinned key, instead of showing and pinning its key."
        ),
        click.option("--checksum", is_flag=True, help="Compare files by content, not by size and time."),
    ):
        function = option(function)
    return function


def engine_option(text: str) -> Callable[[F], F]:
    """``--engine``: who starts the run on the host."""
    return click.option("--engine", type=click.Choice(["box", "slurm"]), default="box", help=text)


ENGINE = "slurm: the host is a cluster's login node, and Slurm starts the run. By default the box itself does."


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the run ids with this beginning, the newest first. As the two below, from this machine's records alone."""
    from runner import store

    return [run_id for run_id in reversed(store.run_ids()) if run_id.startswith(incomplete)]


def complete_sweep(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the ids of submissions with this beginning, the newest first."""
    from runner import store

    ids = dict.fromkeys(run.submission or "" for run in reversed(store.load_all()[0]))
    return [each for each in ids if each and each.startswith(incomplete)]


def complete_run_or_sweep(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the runs, then the submissions of several runs."""
    from runner import store
    from runner.workflow.observing.listing import sweeps_of

    several = sweeps_of(store.load_all()[0])
    return [
        *complete_run(ctx, param, incomplete),
        *(each for each in complete_sweep(ctx, param, incomplete) if each in several),
    ]


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the runs; behind a run and a colon its checkpoints. Folders the shell knows itself."""
    run, colon, _ = incomplete.partition(":")
    if not colon:
        return complete_run(ctx, param, incomplete)
    return [name for name in (f"{run}:{each}" for each in _checkpoints(run)) if name.startswith(incomplete)]


def complete_host(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the hosts that were reached before and are one word, the latest first."""
    from runner import files
    from runner.domain import places
    from runner.domain.host import LOCAL

    hosts = files.read_json(places.hosts_file())
    seen = sorted(hosts, key=lambda typed: _seen_at(hosts[typed]), reverse=True)
    words = dict.fromkeys([*(typed for typed in seen if " " not in typed), LOCAL])
    return [word for word in words if word.startswith(incomplete)]


def _seen_at(entry: object) -> float:
    seen = entry.get("seen_at") if isinstance(entry, dict) else None
    return seen if isinstance(seen, int | float) else 0.0


def complete_checkpoint(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the checkpoints that the run's events name and those that were fetched, the latest first."""
    names = (str(param.default or "latest"), *_checkpoints(ctx.params.get("run") or ctx.params.get("target")))
    return [name for name in names if name.startswith(incomplete)]


def _checkpoints(run: str | None) -> list[str]:
    """The latest first; none of a run that is not known here."""
    from runner import store
    from runner.domain.errors import GpurunError
    from runner.workflow.observing.listing import checkpoint_names

    try:
        return checkpoint_names(store.find(run))[::-1]
    except GpurunError:
        return []
