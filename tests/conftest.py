"""Fixtures for all tests."""

from tests.support.cli import gpurun as gpurun
from tests.support.cli import job as job
from tests.support.hub import hub as hub
