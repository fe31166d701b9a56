"""Fixtures for all tests."""

from tests.support.hub import hub as hub
