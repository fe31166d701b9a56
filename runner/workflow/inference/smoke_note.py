"""The verdict of a run's last smoke test, noted beside its record, so that its report can tell it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from runner.domain import places
from runner.domain.answers.reading import Fields, Impossible, boolean, list_of, text
from runner.domain.errors import DiskTrouble, SmokeTestFailed
from runner.domain.run import Run
from runner.files import read_json, write_json
from runner.local_model.report import SmokeReport

FILE = "smoke-test.json"


@dataclass(frozen=True)
class Verdict:
    """One model: ``about`` says on what device it was tested, and what was compared or went wrong."""

    model: str
    passed: bool
    about: str


def note(run: Run, verdicts: Sequence[Verdict]) -> None:
    """Replaces the note. Where the disk refuses it, the test counts all the same."""
    with contextlib.suppress(DiskTrouble):
        write_json(places.run_folder(run.run_id) / FILE, {"models": [asdict(each) for each in verdicts]})


def noted(run: Run) -> tuple[Verdict, ...]:
    """The verdicts of the last smoke test; none where there was none, or its note is damaged."""
    try:
        return Fields(read_json(places.run_folder(run.run_id) / FILE))("models", list_of(_verdict))
    except Impossible:
        return ()


def verdict_of(report: SmokeReport) -> Verdict:
    """What a test of one model came to, in words."""
    found = [
        f"{report.device_name}, {report.dtype}: {report.samples} samples, {report.samples_per_second:.3g} a second"
    ]
    if report.comparison is None:
        found.append("the box left no predictions to compare with")
    else:
        compared = report.comparison
        found.append(f"{compared.agree} of {compared.answers} answers as on the box")
        found.append(f"largest difference of a logit {compared.difference:.2g}, {compared.limit:.3g} allowed")
        found += compared.problems
    return Verdict(str(report.folder.name), report.passed, "\n".join(found))


def not_loaded(error: SmokeTestFailed) -> Verdict:
    """The verdict of a test that ended with an error."""
    return Verdict("model", False, error.message)


def _verdict(value: object) -> Verdict:
    fields = Fields(value)
    return Verdict(fields("model", text), fields("passed", boolean), fields("about", text))
