"""Verb ``install_tools``: installs system tools that a run needs and the box lacks."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from remote_payload.agent.box.tools import PACKAGES, install
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Installed


def install_tools(request: Request) -> Installed:
    """Installs those of ``tools`` that are missing. Gives ``{installed, present}``; progress ``{line}``.

    Raises AgentError BoxNotReady, with the command to type, where it may not install them or could not.
    """
    asked = request.fields().texts("tools")
    unknown = [tool for tool in asked if tool not in PACKAGES]
    if unknown or not asked:
        raise AgentError("GpurunError", "no such tool to install: %.200r" % unknown)
    absent = [tool for tool in asked if shutil.which(tool) is None]
    if absent:
        install([PACKAGES[tool] for tool in absent], lambda line: request.progress({"line": line}))
    still_absent = [tool for tool in absent if not tool.startswith("python3-") and shutil.which(tool) is None]
    if still_absent:
        raise AgentError("BoxNotReady", "installed, but still not found on the box: %s" % ", ".join(still_absent))
    return {"installed": absent, "present": [tool for tool in asked if tool not in absent]}
