"""What a program of the user's own writes that is complete as a whole or not at all: known forms of checkpoints, the job's own rule, and
any other file by itself.

Forms that are known: ``checkpoint-N`` of the Hugging Face Trainer, ``*.ckpt`` of Lightning (a file, or a folder of a sharded run), a folder
whose name is a word of COUNTED with a number (accelerate, DeepSpeed, Megatron, PyTorch's own), a file with a suffix of WEIGHTS.
"""

import posixpath
import re
from typing import Dict, Iterable, List, NamedTuple, Optional

from remote_payload.agent.run.checkpoints.rule import Rule

TRAINER = re.compile(r"checkpoint-([0-9]{1,12})")
TRAINER_STATE = "trainer_state.json"  # the Trainer writes it last (transformers, Trainer._save_checkpoint)
ACCELERATE = re.compile(
    r"random_states_[0-9]+\.pkl"
)  # accelerate writes it last; folders of diffusers' scripts are called as the Trainer's
TRAINERS = ("model", "pytorch_model", "adapter_model", "optimizer", "scheduler")  # what is written before
COUNTED = re.compile(r"(?:checkpoint|ckpt|step|global_?step|epoch|iter|iteration)s?[-_=]?([0-9]{1,12})", re.IGNORECASE)
LIGHTNING = ".ckpt"
WEIGHTS = (".ckpt", ".pt", ".pth", ".safetensors", ".h5", ".keras", ".npz", ".pkl", ".msgpack")
STEP = re.compile(r"(?:^|[^a-z])(?:global_?step|step|iteration|iter|it)s?[-_=]?([0-9]{1,12})(?![0-9])", re.IGNORECASE)


class Unit(NamedTuple):
    """A file or a folder that is complete as a whole. ``path`` is below ``outputs/``, as ``files`` are."""

    path: str
    files: List[str]
    is_folder: bool
    step: Optional[int] = None
    is_checkpoint: bool = True  # False: a result like any other

    def needs(self, rule: Rule) -> Optional[str]:
        """The path of the file that shows that it is complete, None where its form has none."""
        if rule.matches(self.path):
            return rule.marker_of(self.path, self.is_folder)
        if not self._is_trainers:
            return None
        names = {posixpath.relpath(path, self.path) for path in self.files}
        accelerates = next((name for name in sorted(names) if ACCELERATE.fullmatch(name)), TRAINER_STATE)
        return posixpath.join(self.path, TRAINER_STATE if TRAINER_STATE in names else accelerates)

    def precedes(self, path: str, rule: Rule) -> bool:
        """Whether this file of it is written before the one that it needs. Of the Trainer's other ranks and callbacks may write later."""
        if rule.matches(self.path):
            return True
        return posixpath.dirname(path) == self.path and posixpath.basename(path).startswith(TRAINERS)

    @property
    def _is_trainers(self) -> bool:
        return self.is_folder and bool(TRAINER.fullmatch(posixpath.basename(self.path)))


def find_units(paths: Iterable[str], rule: Rule) -> List[Unit]:
    """The units that these files (below ``outputs/``) form, by path. The outermost folder of a known form counts."""
    found: Dict[str, Unit] = {}
    for path in sorted(paths):
        folder = _folder_of(path, rule)
        top = folder or path
        if top not in found:
            found[top] = _unit(top, folder is not None, rule)
        found[top].files.append(path)
    return list(found.values())


def _folder_of(path: str, rule: Rule) -> Optional[str]:
    """The outermost folder around ``path`` that is one checkpoint."""
    if rule.matches(path):
        return None
    parts = path.split("/")
    folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    named = [folder for folder in folders if rule.matches(folder)]
    return next((folder for folder in [*named, *folders] if rule.matches(folder) or _is_known(folder)), None)


def _is_known(folder: str) -> bool:
    name = posixpath.basename(folder)
    return bool(COUNTED.fullmatch(name)) or name.endswith(LIGHTNING)


def _unit(path: str, is_folder: bool, rule: Rule) -> Unit:
    name = posixpath.basename(path)
    return Unit(path, [], is_folder, step_in(name), is_folder or rule.matches(path) or name.lower().endswith(WEIGHTS))


def step_in(name: str) -> Optional[int]:
    """The step that a name says: ``checkpoint-500``, ``epoch=3-step=1200.ckpt``, ``iter_0001000``, ``ckpt_500.pt``."""
    found = STEP.search(name) or COUNTED.fullmatch(posixpath.splitext(name)[0])
    if found is None or (name.lower().startswith("epoch") and "step" not in name.lower()):
        return None
    return int(found.group(1))
