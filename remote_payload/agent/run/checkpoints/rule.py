"""The rule of a job for its checkpoints: ``checkpoints: {pattern, complete_when}``."""

import re
from typing import Any, Dict, NamedTuple, Optional

from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import RunPaths

QUIET = 10.0  # seconds without a change after which a file or folder may be complete, where the job says nothing
_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)s")


class Rule(NamedTuple):
    """What the job says. ``marker``: the name of a file that is written when a checkpoint is complete; ``{name}`` in it is the
    checkpoint's own name."""

    pattern: Optional[str] = None
    marker: Optional[str] = None
    quiet: float = QUIET  # seconds

    def matches(self, path: str) -> bool:
        """Whether the pattern names this file or folder (a path below ``outputs/``)."""
        return self.pattern is not None and bool(re.fullmatch(_expression(self.pattern), path))

    def marker_of(self, path: str, is_folder: bool) -> Optional[str]:
        """The marker's path for the checkpoint at ``path``: inside a folder, beside a file. None where the job names none."""
        if self.marker is None:
            return None
        above, _, name = path.rpartition("/")
        within = path if is_folder else above
        return "/".join(part for part in (within, self.marker.replace("{name}", name)) if part)


def is_foreign(run: RunPaths) -> bool:
    """Whether code of the user's own writes the outputs: a command, or a recipe of one's own. gpurun's recipes rename whole folders into
    place."""
    recipe = (read_json(run.job) or {}).get("recipe")
    return not isinstance(recipe, str) or recipe.endswith(".py")


def read_rule(run: RunPaths) -> Rule:
    """The rule of the run's job."""
    return rule_of_job(read_json(run.job) or {})


def rule_of_job(job: Dict[str, Any]) -> Rule:
    """The rule of a job as ``job.json`` has it; what is missing or of another type says nothing."""
    written = job.get("checkpoints")
    if not isinstance(written, dict):
        return Rule()
    pattern, when = written.get("pattern"), written.get("complete_when")
    found = Rule(pattern if isinstance(pattern, str) else None)
    if not isinstance(when, str):
        return found
    seconds = _SECONDS.fullmatch(when)  # as ``Job.wire`` writes a duration
    return found._replace(quiet=float(seconds.group(1))) if seconds else found._replace(marker=when)


def _expression(pattern: str) -> str:
    """A pattern as a regular expression: ``*`` and ``?`` stand for characters but "/", ``**`` for any."""
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    meaning = {"**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    return "".join(meaning.get(part) or re.escape(part) for part in parts)
