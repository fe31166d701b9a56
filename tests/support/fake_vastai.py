#!/usr/bin/env python3
"""stand_in for the tool of vast.ai, which needs an account: the two commands that gpurun asks for, and how they go wrong.

As the real one it asks before it destroys, and ends with 0 where nobody answers. ``FAKE_VAST`` is a folder with its state:
``instances.json``, ``mode`` (what goes wrong), ``pid`` (the box's sshd). Each call is added to ``calls``.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

state = Path(os.environ["FAKE_VAST"])
mode = (state / "mode").read_text()
with open(state / "calls", "a", encoding="utf-8") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")

if sys.argv[1:] == ["show", "instances", "--raw"]:
    if mode == "cannot list":
        print(json.dumps({"success": False, "msg": "service unavailable"}))
        sys.exit(0)
    print((state / "instances.json").read_text())
    sys.exit(0)

assert sys.argv[1:3] == ["destroy", "instance"], sys.argv
try:
    answer = input("Are you sure you want to destroy instance? [y/N] ")
except EOFError:
    answer = ""
if answer != "y":
    print("Aborted.")
    sys.exit(0)
if mode == "fails":
    print("403 Client Error for url: https://console.vast.ai/api/v0/instances/1/?api_key=" + "0123456789abcdef" * 4)
    sys.exit(1)
if mode == "hangs":
    time.sleep(600)
if mode == "says yes":
    print("destroying instance 77.")
    sys.exit(0)
os.kill(int((state / "pid").read_text()), signal.SIGTERM)
rows = json.loads((state / "instances.json").read_text())
left = [row for row in rows if str(row["id"]) != sys.argv[3]]
rows = [{**row, "actual_status": "exited"} for row in rows] if mode == "stops" else left
(state / "instances.json").write_text(json.dumps(rows))
print(f"destroying instance {sys.argv[3]}.")
