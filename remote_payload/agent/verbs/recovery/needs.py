"""What an interrupted run needs to start again, and which of it is gone. A run starts again only where all of this is shown to be there:

- its own files: what was asked for, its job, the list of its code, and an exit record that shows that it was not over;
- its code: every file with the size and the time that it was pushed with (outputs and data are looked at by themselves);
- its data: sealed, and not a name, size or time changed since;
- its environment: an interpreter that starts, and of one that gpurun built every file that its packages list; the training package;
  the program that its command names;
- its outputs; and of a run that had begun its log, its events, and where it had saved a checkpoint of a recipe, a complete one.

Not shown: that a file holds the same bytes where size and time are the same, and what a program of the user's own has written into its
outputs. A model of the Hub that is gone from the cache is loaded again.
"""

import os
import posixpath
import re
import shutil
from typing import Dict, List, NamedTuple, Optional

from remote_payload.agent.box import snapshot
from remote_payload.agent.box.files import read_json
from remote_payload.agent.box.pythons import contents, interpreters
from remote_payload.agent.run import events, slot
from remote_payload.agent.run.checkpoints import of_run
from remote_payload.agent.run.checkpoints.rule import rule_of_job
from remote_payload.agent.run.order import LaunchFile, read_launch
from remote_payload.agent.verbs import seal
from remote_payload.agent.verbs.box import install_payload
from remote_payload.agent.wire import launch_request
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields, is_whole
from remote_payload.agent.wire.launch_request import LaunchRequest
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

MAX_NAMED = 3
CHECKPOINT = re.compile(r"step-[0-9]{1,12}")


class Needs(NamedTuple):
    """What was found of one run. ``missing`` are sentences without a full stop, and nothing on the box can replace what they name;
    ``environment`` and ``payload`` (its sha256) are what the laptop can build or send again."""

    asked: Optional[LaunchRequest]
    missing: List[str]
    environment: Optional[str] = None
    payload: Optional[str] = None
    checkpoint: Optional[str] = None  # which the run will go on from, where one is known

    def in_words(self) -> List[str]:
        """All that is gone, as sentences."""
        payload = ["its training package %.12s is not there as it was sent" % self.payload] if self.payload else []
        return [*self.missing, *([self.environment] if self.environment else []), *payload]


class Disk:
    """Looks at what runs need; what several runs share is looked at once."""

    def __init__(self, paths: BoxPaths) -> None:
        self._paths = paths
        self._data: Dict[str, bool] = {}
        self._payloads: Dict[str, bool] = {}
        self._interpreters: Dict[str, Optional[str]] = {}

    def needs(self, run: RunPaths, interpreter: Optional[str] = None) -> Needs:
        """What ``run`` needs, and what of it is gone; with another interpreter than its own where one is given."""
        launch, job = read_launch(run), read_json(run.job)
        asked = request_of(run, launch)
        if launch is None or asked is None or job is None:
            return Needs(None, [_no_request(launch, job is not None)])
        began = slot.was_started(run)
        missing = ["it ran on several boxes: gpurun resume starts it on all of them"] if launch.boxes else []
        missing += [*self._records(run, began), *_code(run, asked), *self._lost_data(asked), *_program(asked, launch)]
        checkpoint = last_checkpoint(run) if asked.module else _last_foreign(run, asked) if began else None
        missing += _outputs(run, asked, checkpoint)
        environment = self._environment(interpreter or asked.interpreter)
        return Needs(asked, missing, environment, self._lost_payload(asked.payload), checkpoint)

    def _records(self, run: RunPaths, began: bool) -> List[str]:
        missing = []
        if not began and not slot.is_empty(run):
            missing.append("its exit record is gone or damaged, so nothing shows that it was not over")
        elif os.path.lexists(run.manifest):
            missing.append("it has a list of final outputs, as only a run has that is over")
        if began:
            names = [posixpath.basename(path) for path in (run.log, run.events) if not os.path.isfile(path)]
            missing += ["its %s gone" % " and ".join(names) + (" are" if len(names) > 1 else " is")] if names else []
        return missing

    def _lost_data(self, asked: LaunchRequest) -> List[str]:
        lost = []
        for entry in asked.data:
            if entry.key not in self._data:
                self._data[entry.key] = seal.has_data(self._paths, entry.key)
            whole = self._data[entry.key]
            if whole and entry.member:
                whole = os.path.exists(os.path.join(self._paths.data(entry.key), entry.member))
            if not whole:
                lost.append("its data %s is not there as it was sent" % entry.path)
        return lost

    def _lost_payload(self, sha256: Optional[str]) -> Optional[str]:
        if sha256 is None:
            return None
        if sha256 not in self._payloads:
            self._payloads[sha256] = install_payload.is_intact(self._paths.payload(sha256))
        return None if self._payloads[sha256] else sha256

    def _environment(self, interpreter: Optional[str]) -> Optional[str]:
        if not interpreter:
            return None
        if interpreter not in self._interpreters:
            self._interpreters[interpreter] = self._ask(interpreter)
        return self._interpreters[interpreter]

    def _ask(self, interpreter: str) -> Optional[str]:
        envs = posixpath.dirname(self._paths.env("x")) + "/"
        if interpreter.startswith(envs):
            name = interpreter[len(envs) :].split("/")[0]
            why = contents.problem(self._paths.env(name))
            return "its environment %s is not whole: %s" % (name, why) if why else None
        try:
            interpreters.ask(interpreter)
        except (OSError, ValueError, KeyError) as error:
            return "its Python %s does not start (%s)" % (interpreter, getattr(error, "strerror", None) or error)
        return None


def request_of(run: RunPaths, launch: Optional[LaunchFile]) -> Optional[LaunchRequest]:
    """What the run was asked for, without secrets and code; None where that is not written down or is damaged."""
    if launch is None or launch.asked is None:
        return None
    try:
        return launch_request.read(Fields(dict(launch.asked, run_id=run.run_id, job=read_json(run.job) or {})))
    except AgentError:
        return None


def _no_request(launch: Optional[LaunchFile], job: bool) -> str:
    if launch is not None and launch.asked is None:
        return "an older gpurun started it, which did not write down what it was asked for"
    return "its %s is gone or damaged" % ("launch.json" if launch is None or job else "job.json")


def replaced_paths(asked: LaunchRequest) -> List[str]:
    """The paths in the code in whose place the launch puts links: to outputs and to data."""
    return [*asked.outputs, *(entry.path for entry in asked.data if entry.path)]


def _code(run: RunPaths, asked: LaunchRequest) -> List[str]:
    entries = snapshot.recorded(run, replaced_paths(asked))
    if entries is None:
        return ["the list of its code (snapshot.json) is gone or damaged"]
    lost = list(snapshot.changed(run.code, entries)) if os.path.isdir(run.code) else ["all of it"]
    if not lost:
        return []
    named = ", ".join(lost[:MAX_NAMED]) + (", …" if len(lost) > MAX_NAMED else "")
    return ["its code is not there as it was sent: %s" % named]


def _program(asked: LaunchRequest, launch: LaunchFile) -> List[str]:
    """A program by its name or an absolute path; one of the code's own was looked at with the code, the interpreter by itself."""
    word = launch.argv[0] if asked.command and launch.argv else ""
    if not word or word == asked.interpreter or ("/" in word and not word.startswith("/")):
        return []
    found = shutil.which(word, path=launch.environment.get("PATH"))
    return [] if found else ["its program %s is not on the box" % word]


def _outputs(run: RunPaths, asked: LaunchRequest, checkpoint: Optional[str]) -> List[str]:
    if not os.path.isdir(run.outputs):
        return ["its outputs are gone"]
    folders = [name for name in asked.outputs if not posixpath.splitext(name)[1]]
    lost = [name for name in folders if not os.path.exists(os.path.join(run.outputs, name))]
    if lost:
        return ["its outputs are gone: %s" % ", ".join(lost[:MAX_NAMED])]
    saved = events.last(run.events).get("checkpoint")
    if asked.module and saved and checkpoint is None:
        return ["it had saved %s, and no complete checkpoint is there" % str(saved.get("name") or "a checkpoint")[:40]]
    return []


def last_checkpoint(run: RunPaths) -> Optional[str]:
    """The name of a recipe's newest checkpoint that training can resume from and whose files all have the size that its manifest says.

    The run checks their contents too, and takes the one before where they are wrong.
    """
    folder = os.path.join(run.outputs, "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbered = sorted((name for name in names if CHECKPOINT.fullmatch(name)), key=lambda name: int(name[5:]))
    return next((name for name in reversed(numbered) if _is_complete(os.path.join(folder, name))), None)


def _last_foreign(run: RunPaths, asked: LaunchRequest) -> Optional[str]:
    """The checkpoint that a program of the user's own will be told of, by its path in the outputs; None where none is recognised."""
    try:
        complete, _ = of_run.list_foreign(run, rule_of_job(asked.job), is_running=False)
    except OSError:
        return None
    able = [each["path"] for each in complete if each["resumable"]]
    rule = rule_of_job(asked.job)
    return next(iter(([path for path in able if rule.matches(path)] or able)[-1:]), None)


def _is_complete(folder: str) -> bool:
    files = (read_json(os.path.join(folder, "manifest.json")) or {}).get("files")
    if not isinstance(files, list) or not all(isinstance(each, dict) for each in files):
        return False
    sizes = {each.get("path"): each.get("size") for each in files}
    if "optimizer.safetensors" not in sizes:
        return False
    try:
        return all(
            isinstance(path, str) and is_whole(size) and os.path.getsize(os.path.join(folder, path)) == size
            for path, size in sizes.items()
        )
    except OSError:
        return False
