"""What gpurun and the process that loads a model send each other; ``lines.py`` writes and reads them.

gpurun sends one request, and after a ``SampleRequest`` the prompts, one at a time. The process sends ``Progress`` lines and then, for a
``SmokeRequest``, one ``SmokeResult``; for a ``PredictRequest``, one ``PredictResult``; for an ``ExportRequest`` one ``Exported``; for an
``EvaluateRequest`` one ``Evaluated``; for a ``SampleRequest`` ``Loaded`` and an ``Answered`` to each prompt. It sends a ``Failure`` instead
of any of them and ends. ``gpurun sample --on-box`` reads the same lines from the box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from remote_payload.recipes.answers import Answered, Loaded, Seconds, Verbatim
from remote_payload.settings.predict import PredictSettings
from remote_payload.settings.sample import SampleSettings


@dataclass(frozen=True)
class SmokeRequest:
    """Load the model in ``folder`` and predict.

    ``base`` is the folder of an adapter's base model. ``described`` is true when the folder has a gpurun.json. ``dtype`` is a
    name of torch, ``max_length`` is in tokens. ``inputs`` is a file of JSON Lines, without it a few built-in texts are used;
    ``expected`` is the file with the box's predictions, without it nothing is compared.
    """

    folder: Path
    base: Path | None
    described: bool
    kind: str
    adapter: bool
    device: str
    dtype: str
    labels: tuple[Verbatim, ...]
    max_length: int
    inputs: Path | None
    expected: Path | None


@dataclass(frozen=True)
class SampleRequest:
    """Load the model in ``folder`` and answer prompts as ``settings`` says.

    ``base`` is the folder of the base model, for an adapter and where the base is asked too. ``dtype`` is used on every device but
    CUDA, where it is bfloat16. ``name`` is for messages.
    """

    name: str
    folder: Path
    base: Path | None
    dtype: str
    settings: SampleSettings


@dataclass(frozen=True)
class PredictRequest:
    """Load the model in ``folder``, with its adapter's base in ``base``, and predict files as ``settings`` says (paths absolute).

    ``kind`` is the model's as ``remote_payload/train/inference/target.py`` names them. With ``check`` nothing is loaded or written: the
    rows are read. ``name`` is for messages.
    """

    name: str
    folder: Path
    base: Path | None
    kind: str
    device: str
    dtype: str
    settings: PredictSettings
    check: bool = False


@dataclass(frozen=True)
class ExportRequest:
    """Write the model of ``source`` to the new folder ``into``: whole, its adapter merged, the weights in ``dtype``. With a ``title`` the
    source is a checkpoint, and is written as the finished model that it would have been, its adapter not merged: the title is its card's.

    ``into/smoke`` then has the predictions of ``source``, or where it names none, what the model predicts here before it is merged.
    ``questions`` is a new file for them in numbers, of a language model: token ids and the most probable tokens (``exporting/gguf.py``).
    ``form`` asks for the ``PromptForm``.
    """

    source: SmokeRequest
    into: Path
    dtype: str
    questions: Path | None = None
    form: bool = False
    title: Verbatim | None = None


@dataclass(frozen=True)
class EvaluateRequest:
    """Measure models: ``settings`` are the fields of ``EvaluateSettings``, ``outputs`` is the folder for what is found."""

    settings: dict[str, object]
    outputs: Path


Request: TypeAlias = SmokeRequest | SampleRequest | PredictRequest | ExportRequest | EvaluateRequest


@dataclass(frozen=True)
class Progress:
    """What the process does now. A field that is None leaves what is shown as it is."""

    done: float | None = None
    total: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Failure:
    """The reason why there is no result, and what the user can do; ``of_input`` where it is in the user's own files."""

    message: str
    hint: str = ""
    of_input: bool = False


@dataclass(frozen=True)
class RowDifference:
    """One row of inputs: this machine's prediction compared with the box's.

    ``difference`` is the largest absolute difference of a logit. Where another label or token was chosen, ``gap`` is this
    machine's logit of its own choice minus that of the box's choice, and ``here`` and ``there`` name the two; else ``gap`` is None.
    """

    difference: float
    gap: float | None
    here: Verbatim = ""
    there: Verbatim = ""


@dataclass(frozen=True)
class Measured:
    """All rows compared with the box's. ``scale`` is the box's largest absolute logit; ``agree`` of ``answers`` choices are equal."""

    rows: tuple[RowDifference, ...]
    scale: float
    agree: int
    answers: int


@dataclass(frozen=True)
class Labelled:
    """The class that was chosen for one text, and its probability."""

    label: Verbatim
    probability: float


@dataclass(frozen=True)
class Predictions:
    """What the model predicted for ``samples`` inputs, in ``seconds``.

    ``counts`` is how often each class was chosen (of a classifier); ``tokens`` how many were generated and ``texts`` their
    beginnings (of a language model). ``labelled`` is the class of each of the user's own texts. ``comparison`` is None when there was
    nothing to compare with.
    """

    samples: int
    seconds: Seconds
    counts: tuple[int, ...] | None = None
    tokens: int | None = None
    texts: tuple[Verbatim, ...] = ()
    comparison: Measured | None = None
    labelled: tuple[Labelled, ...] = ()


@dataclass(frozen=True)
class SmokeResult:
    """The device and the versions used, ``peak_memory`` in bytes, and the predictions."""

    device: str
    device_name: str
    torch: str
    load_seconds: Seconds
    peak_memory: int
    predictions: Predictions


@dataclass(frozen=True)
class PredictResult:
    """Of the whole output ``rows``, those ``bad``, those whose text was ``cut`` and how often each class was predicted; of this attempt
    the rows ``predicted``, in ``seconds``. Of a check ``problems`` are the first bad rows."""

    device: str
    rows: int
    bad: int
    cut: int
    counts: dict[str, int]
    predicted: int
    seconds: Seconds
    peak_memory: int
    problems: tuple[Verbatim, ...] = ()


@dataclass(frozen=True)
class PromptForm:
    """How a language model is asked, for Ollama: a template of Go's, the system message (empty: none), texts at which answers end."""

    template: Verbatim
    system: Verbatim
    stop: tuple[Verbatim, ...]


@dataclass(frozen=True)
class Exported:
    """The model is written. ``merged`` is how many layers had an adapter; ``form`` is None where it was not asked for."""

    merged: int
    form: PromptForm | None = None


@dataclass(frozen=True)
class Evaluated:
    """The evaluation is over; its files are in the folder of the request."""

    columns: int


Message: TypeAlias = Progress | Failure | SmokeResult | Loaded | Answered | PredictResult | Exported | Evaluated
Send: TypeAlias = Callable[[Message], None]
