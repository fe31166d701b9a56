"""Who reads what a command prints: a person at a terminal, or a program: a pipe, a script, a coding agent with a terminal of its own."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

import click

# By one of these a coding agent says that it is one: the first two are common to all, the others each tool's own. The list is that of the
# Hugging Face client (huggingface_hub 1.10, utils/_detect_agent.py); later ones download theirs from the Hub.
AGENT_VARIABLES = (
    "AI_AGENT", "AGENT",
    "ANTIGRAVITY_AGENT", "AUGMENT_AGENT", "CLINE_ACTIVE", "CLAUDE_CODE_IS_COWORK", "CLAUDECODE", "CLAUDE_CODE", "CODEX_SANDBOX", "CODEX_CI",
    "CODEX_THREAD_ID", "CURSOR_TRACE_ID", "CURSOR_AGENT", "GEMINI_CLI", "COPILOT_MODEL", "COPILOT_ALLOW_ALL", "COPILOT_GITHUB_TOKEN",
    "GOOSE_TERMINAL", "OPENCLAW_SHELL", "OPENCODE_CLIENT", "REPL_ID", "ROO_ACTIVE", "TRAE_AI_SHELL_ID",
)  # fmt: skip


def is_agent() -> bool:
    """Whether a coding agent says by its variables that it types the commands."""
    return any(os.environ.get(name, "").strip() for name in AGENT_VARIABLES)


def is_person(stream: TextIO) -> bool:
    """Whether somebody sits at the other end of a stream: then bars move, tables fit the window and questions are asked."""
    return stream.isatty() and not is_agent()


def columns() -> int | None:
    """How wide a table on stdout may be; None where nobody looks at it in a window, and nothing is to be cut."""
    return shutil.get_terminal_size().columns if is_person(sys.stdout) else None


def colours() -> bool | None:
    """For ``click.echo``: False where there are to be none, else None: as the stream is."""
    return False if os.environ.get("NO_COLOR") or is_agent() else None


def confirmed(question: str, otherwise: str) -> bool:
    """Asks a person. Raises UsageError, with what to type ``otherwise``, where nobody can be asked: a program must not hang there, nor
    answer by chance.
    """
    if not (is_person(sys.stdin) and is_person(sys.stderr)):
        raise click.UsageError(f"nobody can be asked here, and nothing was done: {otherwise}")
    return click.confirm(question, err=True)
