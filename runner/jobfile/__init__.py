"""Job files: YAML text → Job, every error with its line and column."""

from runner.jobfile.load import changed_since, check, examine, load, load_runs
from runner.jobfile.problems import InvalidJobFile, Place, Problem
from runner.jobfile.schema import json_schema

__all__ = [
    "InvalidJobFile",
    "Place",
    "Problem",
    "changed_since",
    "check",
    "examine",
    "json_schema",
    "load",
    "load_runs",
]
