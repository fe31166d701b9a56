"""Invariants under seeded random histories; each file states one sentence and tries it. See tests/support/trials.py."""
