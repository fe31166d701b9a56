"""The command line: one group whose commands are loaded when they are called."""

from __future__ import annotations

import importlib
import sys
import textwrap
from typing import Any

import click

from runner import __version__
from runner.cli import interrupts
from runner.cli.errors import closed_pipe_is_no_error, exit_for
from runner.domain.errors import EXIT_CODES

# What a person wants → name → (module under runner.cli, one line for --help). Nothing is imported until it is called.
GROUPS = {
    "The four of every run": {
        "submit": ("submit", "Start a run on a box: check, push, provision, launch."),
        "logs": ("logs", "Print the log of a run, or follow it to the end."),
        "fetch": ("fetch", "Copy a run's outputs to this machine, and verify them."),
        "smoke-test": ("smoke_test", "Load the fetched model and compare it with the box."),
    },
    "Start and stop": {
        "init": ("init", "Write a commented job file for the code in this folder."),
        "validate": ("validate", "Check job files offline."),
        "check": ("check", "Check a job and a box before money is spent."),
        "resume": ("resume", "Continue from the last good checkpoint, as a new run."),
        "skill": ("skill", "Write a skill file for coding agents."),
        "stop": ("stop", "Stop runs: end all their processes."),
    },
    "Watch": {
        "list": ("list_runs", "List the runs of this machine, or all runs on a box."),
        "status": ("status", "Show one run: phase, progress, time left, GPUs, cost."),
        "watch": ("watch", "Look on while runs train: curves, time left, GPUs, cost."),
        "sweep": ("sweep", "Show the runs of one submission, and their means over seeds."),
        "compare": ("compare", "Show in what runs differ, and what they measured."),
        "tensorboard": ("tensorboard", "Start TensorBoard here over the logs of runs."),
        "report": ("report", "Write a page: curves, results, how to repeat the run."),
        "wait": ("wait", "Wait until a run starts, has a checkpoint, or ends."),
    },
    "Bring home": {
        "keep": ("keep", "Bring home what runs produce, until they are over."),
        "checkpoints": ("checkpoints", "List the checkpoints of a run."),
        "done": ("done", "Check whether the box may be destroyed."),
    },
    "Use what was trained": {
        "sample": ("sample", "Generate text with a checkpoint."),
        "predict": ("predict", "Write a model's prediction for each row of files."),
        "evaluate": ("evaluate", "Measure models on the same data, side by side."),
        "export": ("export", "Write the model in a form that other tools load."),
        "publish": ("publish", "Publish a model on the Hub, private by default."),
    },
    "Boxes": {
        "hosts": ("hosts", "List the known boxes and their pinned keys."),
        "ssh": ("ssh", "Open a shell in a run's folder, or on a box."),
        "exec": ("execute", "Run a command in a run's folder, with its environment."),
        "clean": ("clean", "Delete old runs and unused files on a box."),
    },
}
COMMANDS = {name: entry for commands in GROUPS.values() for name, entry in commands.items()}

EPILOG = """\b
Examples:
  gpurun submit jobs/legal.yaml --host root@remote-gpu
  gpurun submit jobs/demo.yaml --host local --follow
  gpurun submit jobs/legal.yaml --host "ssh -p 41022 root@1.2.3.4"
  gpurun logs -f          without a run id, a command takes the latest run

\b
{codes}
GPURUN_HOME names the folder for local state (~/.gpurun). NO_COLOR is obeyed."""
CODES = "Exit codes: " + ", ".join(f"{code} {what}" for code, what in EXIT_CODES.items()) + "."


class Commands(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """``--help`` and ``--version`` print here."""
        with closed_pipe_is_no_error():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command."""
        with closed_pipe_is_no_error():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"runner.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"there is no command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, (_, line) in commands.items()])


@click.group(
    cls=Commands,
    epilog=EPILOG.format(codes=textwrap.fill(CODES, 78)),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="gpurun")
def gpurun() -> None:
    """Train on a rented GPU box over SSH, and bring the tested model home."""


def run(arguments: list[str]) -> None:
    """Runs a command and exits with its code."""
    try:
        with interrupts.raised():
            code = gpurun.main(arguments, prog_name="gpurun", standalone_mode=False)
    except (KeyboardInterrupt, Exception) as error:
        exit_for(error, arguments)
    sys.exit(code if isinstance(code, int) else 0)
