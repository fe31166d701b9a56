"""Fixtures of the fault tests."""

from tests.support.box import box as box
