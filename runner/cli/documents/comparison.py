"""Runs beside each other, and in what they differ."""

from __future__ import annotations

from typing import TypedDict

from runner.cli.documents.runs import Run


class ComparedRow(TypedDict):
    name: str
    values: list[object]


class ComparedFile(TypedDict):
    size: int
    content: str
    mode: int | None


class ComparedFiles(TypedDict):
    path: str
    files: list[ComparedFile | None]


class ComparedMetric(TypedDict):
    evaluation: str
    metric: str
    values: list[float | None]
    more_is_better: bool | None
    best: list[int]


class Compare(TypedDict):
    runs: list[Run]
    settings: list[ComparedRow]
    code: list[ComparedRow]
    code_files: list[ComparedFiles] | None
    diff: list[str] | None
    data: list[ComparedRow]
    data_files: list[ComparedFiles] | None
    environment: list[ComparedRow]
    metrics: list[ComparedMetric]
    course: list[ComparedRow]
    notes: list[str]
    unreachable: list[str]
