"""What is shown of the other boxes of a run on several."""

from __future__ import annotations

from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean

LINES = 20


def show_other_logs(run: Run, report: Reporter) -> None:
    """Of a run that failed: the end of the log of each other box, and where all of it is on this machine."""
    if not run.others or run.status is None or run.status.outcome not in ("failed", "lost", "interrupted"):
        return
    from runner.workflow.observing.logs import read
    from runner.workflow.several_boxes.logs import bring_logs

    for log in bring_logs(run, report):
        if log.error is not None:
            report.warn(f"the log of {log.host} (node rank {log.rank}): {log.error.message}")
        if not log.file.exists():
            continue
        lines = b"".join(read(log.file, LINES)).decode("utf-8", "replace").splitlines()
        report.note(f"{log.host} (node rank {log.rank}), the last {len(lines)} lines; all of them: {log.file}")
        for line in lines:
            report.note("  " + clean(line, 500))
