"""A base model on this machine: a folder as it is, or a download from the Hub.

The download runs in its own process. When nothing arrives for a minute the process is ended and started again without Xet
(``HF_HUB_DISABLE_XET=1``), the transfer protocol that stalls on some networks. Complete files are not downloaded twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from remote_payload.train.errors import InputError, UnusableModel
from remote_payload.train.files import sha256_of, shown_path
from remote_payload.train.run import Run

WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # no pickles, no code
STALLED_AFTER = 60.0  # seconds without a new byte


@dataclass(frozen=True)
class BaseModel:
    """Where a base model is on this machine, and its name elsewhere."""

    id: str  # as the job names it
    path: str
    revision: str | None = None  # the commit, for a model of the Hub
    sha256: str | None = None  # of model.safetensors, for a folder
    licence: str | None = None

    @property
    def on_the_hub(self) -> bool:
        return self.revision is not None

    @property
    def name(self) -> str:
        """For cards and adapter_config.json. A folder's name begins with ./, so that nobody looks it up on the Hub: a model of
        the same name there is somebody else's."""
        return self.id if self.on_the_hub else "./" + shown_path(self.id)

    def as_dict(self) -> BaseFacts:
        """For gpurun.json and the record: ``path`` only when the job itself named a folder."""
        return {
            "id": self.id,
            "path": None if self.on_the_hub else self.id,
            "revision": self.revision,
            "sha256": self.sha256,
            "licence": self.licence,
        }


class BaseFacts(TypedDict, total=False):
    """What gpurun.json and the record say about a base model: the fields of ``BaseModel``."""

    id: str
    path: str | None
    revision: str | None
    sha256: str | None
    licence: str | None


def base_source(base: BaseFacts, base_path: str | Path | None) -> tuple[str, str | None]:
    """Where the base of an adapter is loaded from, and at which commit. ``base`` comes from the adapter's gpurun.json.

    Raises InputError for a folder that is not on this machine: a model of that name on the Hub would be somebody else's.
    """
    source = str(base_path or base.get("path") or base.get("id"))
    if os.path.isdir(source):
        return source, None
    if base.get("path"):
        raise InputError(
            f"the base model {source} was a folder of the job and is not here; say where it lies (base_path)"
        )
    return source, base.get("revision")


def local_model(run: Run, name: str, revision: str | None = None) -> BaseModel:
    """The base model as a folder of this machine, on every rank. Raises UnusableModel if it does not exist or may not be read."""
    model: BaseModel | None = None
    problem: str | None = None
    if run.world.main:
        try:
            model = _folder(name) if Path(name).is_dir() else _from_hub(run, name, revision)
        except UnusableModel as error:
            problem = error.reason
    model, problem = run.world.broadcast((model, problem))
    if model is None:
        raise UnusableModel(problem or "")
    return model


def _folder(name: str) -> BaseModel:
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise UnusableModel(f"{name} is a folder without config.json, so not a model")
    weights = folder / "model.safetensors"
    sha256 = sha256_of(weights) if weights.is_file() else None
    return BaseModel(name, str(folder), sha256=sha256, licence=_licence_in(folder / "README.md"))


def _licence_in(card: Path) -> str | None:
    """The licence in the YAML header of a model card; None when there is no card, or none that can be read."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        licence = (metadata_load(card) or {}).get("license")
    except (OSError, ValueError, YAMLError):
        return None
    return licence if isinstance(licence, str) else None


def _from_hub(run: Run, name: str, revision: str | None) -> BaseModel:
    run.log(f"fetching {name} from the Hub")
    found = _download(run, name, revision, dict(os.environ))
    if found is None:
        run.telemetry.flag("download_stalled", f"no byte of {name} for {STALLED_AFTER:.0f} s; trying again without Xet")
        found = _download(run, name, revision, {**os.environ, "HF_HUB_DISABLE_XET": "1"})
    if found is None:
        raise UnusableModel(f"the download of {name} stalled twice; is the Hub reachable from this machine?")
    if found.error:
        raise UnusableModel(f"{name}: {found.error}")
    return BaseModel(name, found.path, revision=found.revision, licence=found.licence)


@dataclass(frozen=True)
class Download:
    """The answer of the download process: the snapshot's folder with commit and licence, or an error."""

    path: str = ""
    revision: str | None = None
    licence: str | None = None
    error: str | None = None


def _download(run: Run, name: str, revision: str | None, environment: dict[str, str]) -> Download | None:
    """The answer of the download process; None when it stalled and was ended."""
    command = [sys.executable, "-m", "remote_payload.train.download", name, revision or ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        watch = StallWatch(_cache_folder(), STALLED_AFTER)
        while process.poll() is None:
            time.sleep(0.2)
            if watch.stalled(time.monotonic()):
                process.kill()
                return None
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        return Download(error=f"the download ended with status {process.returncode}")
    return Download(**json.loads(output.splitlines()[-1]))


class StallWatch:
    """Whether the size of a folder has not changed for ``limit`` seconds."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self.size, self.since, self.next_look = -1, 0.0, 0.0

    def stalled(self, now: float) -> bool:
        if now < self.next_look:
            return False
        self.next_look = now + self.limit / 12
        size = _folder_size(self.folder)
        if size != self.size:
            self.size, self.since = size, now
        return now - self.since >= self.limit


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HOME") or constants.HF_HOME)


def _folder_size(folder: Path) -> int:
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except OSError:
                continue  # renamed meanwhile
    return total


def main() -> None:
    """The download process: prints a ``Download`` as one line of JSON on stdout."""
    print(json.dumps(asdict(_answer(sys.argv[1], sys.argv[2] or None))), flush=True)


def _answer(name: str, revision: str | None) -> Download:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        if constants.HF_HUB_OFFLINE:  # only what is in the cache, in a folder that is named after the commit
            path = snapshot_download(name, revision=revision, allow_patterns=WANTED)
            return Download(path, Path(path).name)
        info = HfApi().model_info(name, revision=revision)
        path = snapshot_download(name, revision=info.sha, allow_patterns=WANTED)
        return Download(path, info.sha, info.card_data.get("license") if info.card_data else None)
    except GatedRepoError:
        reason = f"the model is gated and this account may not read it; ask at https://huggingface.co/{name}"
        return Download(error=reason)
    except RepositoryNotFoundError:
        return Download(error="neither a folder here nor a model that this account can see on the Hub")
    except (
        Exception
    ) as error:  # the Hub's, the disk's, or the HTTP library's own, which is another one in each version of the client
        return Download(error=": ".join([type(error).__name__, *str(error).splitlines()[:1]]))


if __name__ == "__main__":
    main()
