"""Installs tools of the system that a run needs and the box lacks."""

import shutil
from typing import Any, Dict

from remote_payload.agent.box.tools import PACKAGES, install
from remote_payload.agent.wire.request import AgentError, Request


def install_tools(request: Request) -> Dict[str, Any]:
    """Verb: sees that ``tools`` are there. Gives ``{installed, present}``; progress ``{line}``.

    Raises AgentError BoxNotReady with the command to type where it may not install, or could not.
    """
    asked = request.args.get("tools")
    if not isinstance(asked, list) or not all(isinstance(tool, str) and tool in PACKAGES for tool in asked):
        raise AgentError("GpurunError", "no such tool to install: %.200r" % (asked,))
    absent = [tool for tool in asked if shutil.which(tool) is None]
    if absent:
        install([PACKAGES[tool] for tool in absent], lambda line: request.progress({"line": line}))
    still_absent = [tool for tool in absent if not tool.startswith("python3-") and shutil.which(tool) is None]
    if still_absent:
        raise AgentError("BoxNotReady", "installed, but still not found on the box: %s" % ", ".join(still_absent))
    return {"installed": absent, "present": [tool for tool in asked if tool not in absent]}
