"""What arrives in the payload's argv, environment and folder is what was asked, byte for byte, or was refused with its line."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.domain.errors import JobFileError
from runner.jobfile import load
from tests.support.cli import Gpurun
from tests.support.hostile_names import HOSTILE_NAMES

DUMP = """
import json, os, sys
files = {}
for top, _, names in os.walk(b"."):
    for name in names:
        path = os.path.join(top, name)
        files[path.hex()] = open(path, "rb").read().hex()
variables = {name.hex(): value.hex() for name, value in os.environb.items()}
arguments = [os.fsencode(each).hex() for each in sys.argv[1:]]
with open(os.path.join(os.environ["GPURUN_OUTPUTS"], "dump.json"), "w") as out:
    json.dump({"argv": arguments, "environ": variables, "files": files}, out)
"""
# Text that a shell, YAML, JSON, rsync, ssh or Python might take for something else, and any text at all.
NASTY = [os.fsdecode(name) for name in HOSTILE_NAMES if b"\xff" not in name] + [
    "", " ", "''", '"', "\\", "$(touch canary)", "`touch canary`", "; touch canary", "&& touch canary", "| touch canary",
    "\ntouch canary\n", "${HOME}", "%h%p%%", "{gpus}", "{}", "!ref", "*alias", "&anchor", "- item", "key: value", "null", "yes",
    "1e3", "0x10", "~", "#", "\x7f", "\u2028", "\u202e", "\ufeff", "é", "e\u0301", "😀", "-", "--", "-c", "--host", "@file",
    "<(touch canary)", ">canary", "\r", "\t", "x" * 5000,
]  # fmt: skip
text = st.one_of(
    st.sampled_from(NASTY), st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
)
variable = st.from_regex(r"[A-Z_][A-Z0-9_]{0,12}", fullmatch=True).map(lambda name: "V_" + name)
file_name = st.binary(min_size=1, max_size=60).filter(lambda raw: not set(raw) & {0, 47} and raw not in (b".", b".."))


def project(folder: Path, command: list[str], variables: dict[str, str], **fields: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(DUMP)
    body = {
        "name": "probe",
        "command": command,
        "resources": {"gpus": 0},
        "environment": {"variables": variables},
        **fields,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(body))  # JSON's \\ud83d\\ude00 is two halves of a character to YAML
    return folder / "job.yaml"


def refusal(error: JobFileError) -> bool:
    """Whether each line of it names its place."""
    return all(re.match(r".*job\.yaml:\d+:\d+: ", line) for line in error.message.splitlines() if "job.yaml" in line)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(text, min_size=1, max_size=6), st.dictionaries(st.one_of(variable, text), text, max_size=4), text)
def test_a_job_file_is_read_as_it_was_written_or_refused_with_its_line(
    tmp_path: Path, command: list[str], variables: dict[str, str], name: str
) -> None:
    file = project(tmp_path / "p", ["python3", "main.py", *command], variables, name=name)
    try:
        job = load(file)
    except JobFileError as error:
        assert refusal(error), error.message
        return
    assert job.name == name and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    assert list(job.command or ()) == ["python3", "main.py", *command]
    assert dict(job.environment.variables) == variables


EXAMPLES = (
    st.lists(text, min_size=30, max_size=60),
    st.dictionaries(variable, text, min_size=20, max_size=30),
    st.dictionaries(
        st.one_of(st.sampled_from(HOSTILE_NAMES), file_name), st.binary(max_size=50), min_size=20, max_size=40
    ),
)


@pytest.mark.slow
def test_what_arrives_at_the_payload_equals_what_was_asked_byte_for_byte(gpurun: Gpurun, tmp_path: Path) -> None:
    """Through the real command, SSH, rsync and the agent."""
    arrived = []

    @settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(*EXAMPLES)
    def one(arguments: list[str], variables: dict[str, str], files: dict[bytes, bytes]) -> None:
        arrived.append(arrives(gpurun, tmp_path, arguments, variables, files))

    one()
    assert sum(arrived) >= len(arrived) / 2, "most were refused"
    assert not list(tmp_path.rglob("canary")) and not list(gpurun.box_root.rglob("canary"))


def write_files(folder: Path, files: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The files as they will be seen from inside the folder."""
    written: dict[bytes, bytes] = {}
    for name, content in files.items():
        if name not in (b"main.py", b"job.yaml"):
            Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content)
            written[b"./" + name] = content
    return written


def arrives(
    gpurun: Gpurun, tmp_path: Path, arguments: list[str], variables: dict[str, str], files: dict[bytes, bytes]
) -> bool:
    """Whether it was taken; then it is compared. False for a refusal that names its line."""
    folder = tmp_path / "project"
    shutil.rmtree(folder, ignore_errors=True)
    arguments = [each for each in arguments if "{gpus}" not in each]  # which stands for the number of GPUs
    file = project(folder, ["python3", "main.py", *arguments], variables)
    written = write_files(folder, files)
    submitted = gpurun("submit", str(file), "--host", "local", "--json", check=None)
    if submitted.returncode:
        assert submitted.returncode == 2 and re.search(r"job\.yaml:\d+:\d+: ", submitted.stdout), submitted.stdout
        return False
    run_id = json.loads(submitted.stdout)["runs"][0]["run_id"]
    gpurun("logs", "-f")
    dumped = json.loads((gpurun.box_run(run_id) / "outputs/dump.json").read_text())
    assert [bytes.fromhex(each) for each in dumped["argv"]] == [each.encode() for each in arguments]
    environ = {bytes.fromhex(name): bytes.fromhex(value) for name, value in dumped["environ"].items()}
    assert {name: environ.get(name.encode()) for name in variables} == {
        name: value.encode() for name, value in variables.items()
    }
    seen = {bytes.fromhex(name): bytes.fromhex(content) for name, content in dumped["files"].items()}
    assert all(seen[name] == written[name] for name in written if name in seen)
    assert set(seen) <= set(written) | {b"./main.py", b"./job.yaml"}
    left_out = {name for name in written if name not in seen}
    assert all(re.match(rb"\./(\.|id_|.*(\.pem|\.key|~|\.pyc)$)", name) for name in left_out), left_out
    return True
