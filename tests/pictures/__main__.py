"""Makes the pictures of docs/pictures again: ``make pictures``. The runs are those of ``tests/support/observing/report_runs.py``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from runner.workflow.reporting.write import write
from tests.support.agent import wait_until
from tests.support.observing import browser as browsers
from tests.support.observing import report_runs

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
SIZE = (1100, 780)


def main() -> None:
    if browsers.find() is None:
        sys.exit("there is no Chromium here; as root: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, browsers.browser() as browser:
        os.environ |= {"HOME": folder, "GPURUN_HOME": f"{folder}/.gpurun", "TZ": "UTC"}
        pages = {
            "run": write([report_runs.a_good_run()], Path(folder) / "run.html"),
            "failed": write([report_runs.a_failed_run()], Path(folder) / "failed.html"),
            "sweep": write(report_runs.a_sweep(), Path(folder) / "sweep.html"),
        }
        for name, page in pages.items():
            for dark in (False, True):
                browser.open(page.path, dark=dark, size=SIZE)
                wait_until(lambda: browser.ask("document.documentElement.dataset.ready"))
                file = PICTURES / f"report-{name}-{'dark' if dark else 'light'}.png"
                browser.picture(file)
                print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
