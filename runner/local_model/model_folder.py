"""Finds the folders of a fetched run that hold a model, and reads what each of them is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from remote_payload.train.inference.kinds import plain_kind
from runner.domain.errors import SmokeTestFailed
from runner.local_model.inspect import Inspected, JsonObject, inspect

DESCRIPTION, CONFIG, ADAPTER = "gpurun.json", "config.json", "adapter_config.json"
INPUTS, EXPECTED, ABOUT = "smoke/inputs.jsonl", "smoke/expected.safetensors", "smoke/about.json"
NOT_SEARCHED = ("checkpoints", "smoke", "logs", "reports")
DEEPEST = 4  # run/outputs/models/best
WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", ".joblib", ".h5", ".onnx", ".gguf", ".npz")
KINDS = ("classifier", "causal_lm", "sequence_classifier", "encoder")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Reference:
    """What the box made its predictions with."""

    dtype: str
    device: str


@dataclass(frozen=True)
class ModelFolder:
    """A model as its folder describes it.

    ``base`` is the base model's name in gpurun.json, ``adapter_base`` that in adapter_config.json. ``described`` is true when there is
    a gpurun.json; ``base_is_folder`` when that says that the base was a folder of the job, so that its name is no repository's.
    ``reference`` is None without predictions of the box.
    """

    inspected: Inspected
    kind: str
    adapter: bool
    base: str | None
    adapter_base: str | None
    base_revision: str | None
    base_is_folder: bool
    dtype: str
    labels: tuple[str, ...]
    max_length: int
    reference: Reference | None
    described: bool

    @property
    def folder(self) -> Path:
        """Where the model is."""
        return self.inspected.folder


def find_models(root: Path) -> list[Path]:
    """The folders to test: ``root`` itself where it is a model, else those below it, checkpoints left out.

    Folders with a gpurun.json come first: where there is one, others are only parts of a run. Raises SmokeTestFailed when
    there is none.
    """
    if is_model(root):
        return [root]
    folders = list(_folders(root, DEEPEST))
    for marks in ((DESCRIPTION,), (CONFIG, ADAPTER)):
        found = [folder for folder in folders if any((folder / mark).is_file() for mark in marks)]
        if found:
            return found
    empty = not folders and not (root.is_dir() and any(root.iterdir()))
    if weights := _weights([root, *folders, *_folders(root / "checkpoints", 1), root / "checkpoints"]):
        raise not_loadable(weights)
    raise SmokeTestFailed(
        f"there is nothing in {root}" if empty else f"there is no model below {root}",
        meaning=f"A model is a folder with {DESCRIPTION}, {CONFIG} or {ADAPTER} in it.",
        hint="Bring it home first: gpurun fetch. A run that still trains has none yet.",
    )


def is_model(folder: Path) -> bool:
    """Whether the folder itself says that it is a model."""
    return any((folder / name).is_file() for name in (DESCRIPTION, CONFIG, ADAPTER))


def not_loadable(weights: list[Path]) -> SmokeTestFailed:
    """The error for weights that only the code which wrote them can read, such as nanoGPT's ckpt.pt."""
    named = ", ".join(path.name for path in weights[:3])
    return SmokeTestFailed(
        f"home, but no model that gpurun can load: {named}",
        meaning=f"gpurun loads folders with {DESCRIPTION}, {CONFIG} or {ADAPTER}, as save_pretrained writes them, and no pickles.",
        hint="Test it with your own code.",
    )


def _weights(folders: list[Path]) -> list[Path]:
    """Files of weights, without those of a recipe's checkpoints, whose finished model comes later."""
    foreign = [folder for folder in folders if folder.is_dir() and not (folder / "state.json").exists()]
    return [
        path for folder in foreign for path in sorted(folder.iterdir()) if path.suffix in WEIGHTS and path.is_file()
    ]


def _folders(root: Path, depth: int) -> list[Path]:
    if depth < 0 or not root.is_dir():
        return []
    found = []
    with os.scandir(root) as entries:
        inside = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    for path in inside:
        if os.path.basename(path) not in NOT_SEARCHED and not os.path.basename(path).startswith("."):
            found += [Path(path), *_folders(Path(path), depth - 1)]
    return found


def read_model_folder(folder: Path, blobs: Path | None = None) -> ModelFolder:
    """Inspects a folder and reads its description of the model; links may lead into ``blobs``. Raises SmokeTestFailed."""
    inspected = inspect(folder, blobs)
    about, config = inspected.configs.get(DESCRIPTION), inspected.configs.get(CONFIG, {})
    adapter = inspected.configs.get(ADAPTER)
    if about is not None and about.get("format") != 1:
        raise _bad(folder, f"its {DESCRIPTION} is of a format that this gpurun does not know")
    checkpoint = "state.json" in inspected.files  # its adapter is in model.safetensors
    if adapter is not None and not checkpoint and "adapter_model.safetensors" not in inspected.tensors:
        raise _bad(folder, "it has an adapter_config.json and no adapter_model.safetensors")
    given = about or {}
    base = _object(given.get("base"))
    kind = given.get("kind") if about is not None else plain_kind(config, adapter)
    if not isinstance(kind, str) or kind not in KINDS:
        raise _bad(folder, f"its {DESCRIPTION if about else CONFIG} does not name a kind of model that gpurun knows")
    labels, length = given.get("labels") or [], given.get("max_length")
    return ModelFolder(
        inspected=inspected,
        kind=kind,
        adapter=adapter is not None,
        base=_text(base.get("id")) or _text((adapter or {}).get("base_model_name_or_path")),
        adapter_base=_text((adapter or {}).get("base_model_name_or_path")),
        base_revision=_text(base.get("revision")) or _text((adapter or {}).get("revision")),
        base_is_folder=_text(base.get("path")) is not None,
        dtype=dtype_named(given.get("dtype") or config.get("dtype") or config.get("torch_dtype")),
        labels=tuple(str(label)[:60] for label in labels) if isinstance(labels, list) else (),
        max_length=length if isinstance(length, int) and 0 < length <= 1 << 20 else 512,
        reference=_reference(inspected),
        described=about is not None,
    )


def _reference(inspected: Inspected) -> Reference | None:
    """What the box wrote about its predictions, None when it sent none. Raises SmokeTestFailed when a part of them is missing."""
    present = [name for name in (INPUTS, EXPECTED, ABOUT) if name in inspected.files]
    if not present:
        return None
    if len(present) < 3:
        missing = ", ".join(sorted({INPUTS, EXPECTED, ABOUT} - set(present)))
        raise _bad(inspected.folder, f"its reference predictions are incomplete: no {missing}")
    about = inspected.configs[ABOUT]
    return Reference(dtype_named(about.get("dtype")), str(about.get("device"))[:40])


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def dtype_named(value: object) -> str:
    """The dtype that a configuration names; float32 where it names none of DTYPES."""
    name = str(value).removeprefix("torch.")
    return name if name in DTYPES else "float32"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _bad(folder: Path, why: str) -> SmokeTestFailed:
    return SmokeTestFailed(f"{folder} cannot be tested: {why}", hint="Fetch it again: gpurun fetch.")
