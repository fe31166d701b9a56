"""Errors and warnings about a selection: files that cannot be sent, and names that look like secrets."""

from __future__ import annotations

import re

from runner.domain.errors import UserError
from runner.domain.quantities import pluralise
from runner.domain.terminal import clean
from runner.push.selection import LINK_OUT, UNREADABLE, UNREADABLE_FOLDER, Selection

MAX_NAMED = 3  # files that a message names
# A guess by name; what is a secret for certain is left out (push/secrets.py). No "token": tokenizers have many files of that name.
_SUSPICIOUS = re.compile(
    r"(.*[._-])?(credentials?|secrets?|passwords?|passwd|api[_-]?keys?)([._-].*)?\.(json|ya?ml|toml|ini|cfg|conf|txt|csv)",
    re.IGNORECASE,
)


def fail_if_not_sendable(title: str, selection: Selection) -> None:
    """Raises UserError where a file that would be sent cannot be read, or data has nothing that can be sent."""
    unreadable = _left_out(selection, UNREADABLE)
    if unreadable:
        exclude = ", or leave it out in the job file (code.exclude)" if title == "code" else ""
        raise UserError(
            f"{title}: {counted(unreadable, 'file')} cannot be read by this user",
            meaning="Nothing was sent: the run would have lacked it.",
            hint=f"chmod u+r {clean(unreadable[0], 200)}{exclude}",
        )
    if title != "code" and not selection.files:
        links = _left_out(selection, LINK_OUT)
        leave = f": {counted(links, 'link')} to places outside of it" if links else ""
        raise UserError(
            f"{title}: nothing in {selection.root} can be sent{leave}",
            meaning="Nothing was sent: the run would have found no data.",
            hint=_name_the_target(title, links)
            if links
            else "gpurun check shows what is left out of the others, and why.",
        )


def warnings(title: str, selection: Selection) -> list[str]:
    """What is allowed and probably not intended, one sentence each."""
    links, folders = _left_out(selection, LINK_OUT), _left_out(selection, UNREADABLE_FOLDER)
    secrets = [left.path for left in selection.left_out if left.reason == "credentials by name"]
    suspicious = [entry.path for entry in selection.files if _SUSPICIOUS.fullmatch(entry.path.rpartition("/")[2])]
    return [
        f"{title}: {what}: {named(paths)}{advice}"
        for what, paths, advice in (
            ("not sent, links that leave the folder", links, ". " + _name_the_target(title, links)),
            ("not sent, folders that this user cannot read", folders, ""),
            ("not sent, secrets by their names", secrets, ". What the run needs: secrets: [NAME], or code.include"),
            ("sent, though the name looks like a secret's", suspicious, ". Leave it out, and use secrets: [NAME]"),
        )
        if paths
    ]


def counted(paths: list[str], noun: str) -> str:
    """How many there are, and the first of them: ``2 files (a.py, b.py)``."""
    return f"{pluralise(len(paths), noun)} ({named(paths)})"


def named(paths: list[str]) -> str:
    """The first few, without control sequences."""
    return ", ".join(clean(path, 200) for path in paths[:MAX_NAMED]) + (", …" if paths[MAX_NAMED:] else "")


def _name_the_target(title: str, links: list[str]) -> str:
    place = f"{title}-2" if title != "code" else links[0] if links else ""
    return f"To send what they lead to: data: [{{path: /where/it/is, as: {clean(place, 100)}}}]"


def _left_out(selection: Selection, reason: str) -> list[str]:
    return [left.path for left in selection.left_out if left.reason.startswith(reason)]
