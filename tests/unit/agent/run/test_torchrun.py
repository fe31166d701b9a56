"""Real torchrun with a rank that fails: the cause is that rank's own exception, however its output comes into the log."""

import subprocess
import sys

import pytest

from remote_payload.agent.run import causes
from remote_payload.agent.wire.protocol import ExitRecord

PROGRAM = """
import torch, torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record
@record
def main():
    dist.init_process_group("gloo")
    dist.all_reduce(torch.ones(1))
    if dist.get_rank() == 1:
        raise ValueError("labels must be below 6, found 9")
    dist.all_reduce(torch.ones(1))
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "recorded"),
    [((), False), ((), True), (("--tee", "3"), False), (("--redirects", "3"), True), (("--redirects", "1:3"), True)],
)
def test_the_first_ranks_own_exception_is_the_cause(tmp_path, options, recorded):
    found = cause_of(tmp_path, options, recorded)
    assert found.cause == "exit 1"
    assert found.evidence.endswith("ValueError: labels must be below 6, found 9")


@pytest.mark.slow
def test_where_all_output_is_in_files_the_first_failure_is_shown_not_the_rank_that_torchrun_ended(tmp_path):
    found = cause_of(tmp_path, ("--redirects", "3"), recorded=False)
    assert found.cause == "exit 1" and found.evidence.startswith("exitcode  : 1 ")


def cause_of(folder, options, recorded):
    (folder / "train.py").write_text(PROGRAM if recorded else PROGRAM.replace("@record\n", ""))
    with open(folder / "log", "wb") as log:
        argv = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options, "train.py"]
        code = subprocess.run([sys.executable, *argv], stdout=log, stderr=log, cwd=folder).returncode
    return causes.explain(ExitRecord("exit", code, 1.0), (folder / "log").read_text(), 0, False)
