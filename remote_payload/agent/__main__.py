"""The agent's entry: ``serve`` answers one laptop over stdin and stdout, ``supervise`` guards one run."""

import os
import sys
from typing import List, NoReturn, Optional

from remote_payload.agent import badge

# A process of our own kind, from the same zipapp or source tree: isolated from the user's PYTHON* variables and site packages.
STARTER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from remote_payload.agent.__main__ import main; main()"


def agent_command(*arguments: str) -> List[str]:
    """The argv that starts this agent again with ``arguments``."""
    origin = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-I", "-S", "-c", STARTER, origin, *arguments]


def main(arguments: Optional[List[str]] = None, early: bytes = b"") -> NoReturn:
    """Runs ``serve NONCE [ROOT]`` or ``supervise RUN``; leaves without waiting for threads that hang in a driver.

    Never with status 1, 2, 97, 126 or 127: those tell the bootstrap's shell that this Python did not even start.
    """
    words = sys.argv[1:] if arguments is None else arguments
    status = 64
    badge.take_off()
    try:
        if words[:1] == ["serve"] and len(words) in (2, 3):
            from remote_payload.agent.paths import ROOT_NAME
            from remote_payload.agent.serve import serve

            status = serve(words[1], words[2] if len(words) == 3 else os.path.expanduser("~/" + ROOT_NAME), early)
        elif words[:1] == ["supervise"] and len(words) == 2:
            from remote_payload.agent.supervisor import supervise

            status = supervise()
        else:
            print("usage: serve NONCE [ROOT] | supervise RUN", file=sys.stderr)
    except BaseException as error:
        print("gpurun agent: %s: %s" % (type(error).__name__, error), file=sys.stderr)
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
