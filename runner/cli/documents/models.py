"""What a trained model did: the smoke test, and the answers to prompts."""

from __future__ import annotations

from typing import TypedDict


class Comparison(TypedDict):
    rows: int
    difference: float | None
    worst_row: int
    limit: float
    agree: int
    answers: int
    problems: list[str]


class Labelled(TypedDict):
    label: str
    probability: float


class Model(TypedDict):
    folder: str
    kind: str
    passed: bool
    device: str
    device_name: str
    dtype: str
    torch: str
    load_seconds: float
    samples: int
    samples_per_second: float
    tokens_per_second: float | None
    peak_memory: int
    counts: dict[str, int] | None
    texts: list[str]
    labelled: list[Labelled]
    comparison: Comparison | None
    not_opened: list[str]


class SmokeTest(TypedDict):
    run_id: str | None
    passed: bool
    models: list[Model]


class ExportedForm(TypedDict):
    form: str
    path: str
    weights: str
    size: int
    merged_layers: int
    compared_with: str
    comparison: Comparison


class Export(TypedDict):
    run_id: str | None
    exports: list[ExportedForm]


class Answer(TypedDict):
    prompt: str
    base: bool
    sample: int
    text: str
    tokens: int
    seconds: float
    ended: bool


class Classified(TypedDict):
    prompt: str
    prediction: str
    probability: float
    probabilities: dict[str, float]
    positive: bool | None
    positive_probability: float | None
    cut: bool
    seconds: float


class Answering(TypedDict):
    max_new_tokens: int
    temperature: float
    top_p: float
    repetition_penalty: float
    system_prompt: str | None
    seed: int


class Predict(TypedDict):
    target: str
    kind: str
    device: str
    dtype: str
    output: str
    dry_run: bool
    rows: int
    bad: int
    cut: int
    counts: dict[str, int]
    predicted: int
    seconds: float
    peak_memory: int
    problems: list[str]


class Sample(TypedDict):
    target: str
    run_id: str | None
    on_box: bool
    kind: str
    device: str
    step: int | None
    metrics: dict[str, float]
    threshold: int | None
    answering: Answering
    answers: list[Answer]
    classified: list[Classified]
