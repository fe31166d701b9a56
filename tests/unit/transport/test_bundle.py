"""What travels to the box."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from runner.transport import bundle

SOURCE = Path(__file__).resolve().parents[3]


def names(packed):
    return zipfile.ZipFile(io.BytesIO(packed.data)).namelist()


def test_the_agent_carries_itself_and_nvml_and_nothing_that_needs_torch():
    inside = names(bundle.agent())
    assert {"__main__.py", "pynvml.py", "remote_payload/__init__.py", "remote_payload/agent/serve.py"} <= set(inside)
    others = [name for name in inside if name.startswith("remote_payload/") and "/agent/" not in name]
    assert others == ["remote_payload/__init__.py", "remote_payload/tokens.py"]
    assert not [name for name in inside if "__pycache__" in name or name.endswith(".pyc")]


def test_the_payload_carries_training_code_and_no_agent():
    inside = names(bundle.payload())
    assert "remote_payload/recipes/__init__.py" in inside and "remote_payload/settings/setting.py" in inside
    assert not [name for name in inside if "/agent/" in name]


def test_the_same_content_gives_the_same_bytes_in_another_process_and_folder(tmp_path):
    program = "from runner.transport import bundle; print(bundle.agent().sha256, bundle.payload().sha256)"
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        cwd=tmp_path,
        capture_output=True,
    )
    assert told.stdout.decode().split() == [bundle.agent().sha256, bundle.payload().sha256]
