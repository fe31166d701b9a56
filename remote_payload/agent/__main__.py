"""The agent's entry point: ``serve`` answers one laptop over stdin and stdout, ``supervise`` guards one run, ``batch`` does it as a job of
Slurm's, ``progress`` reads the log of a run for steps, ``beside`` becomes a program of the user's in a run's folder."""

import os
import sys
from typing import List, NoReturn, Optional

from remote_payload.agent.box import badge


def main(arguments: Optional[List[str]] = None, early: bytes = b"") -> NoReturn:
    """Runs ``serve NONCE [ROOT]``, ``supervise RUN``, ``progress FOLDER``, ``batch ROOT RUN`` or ``beside ROOT RUN WORDS``; exits without
    waiting for threads that hang in a driver.

    ``serve`` never ends with status 1, 2, 97, 126 or 127: to the bootstrap's shell these mean that this Python did not start.
    """
    words = sys.argv[1:] if arguments is None else arguments
    status = 64
    badge.remove_badge()
    try:
        if words[:1] == ["serve"] and len(words) in (2, 3):
            from remote_payload.agent.serve import serve
            from remote_payload.agent.wire.paths import ROOT_NAME

            status = serve(words[1], words[2] if len(words) == 3 else os.path.expanduser("~/" + ROOT_NAME), early)
        elif words[:1] == ["supervise"] and len(words) == 2:
            from remote_payload.agent.run.supervisor import supervise

            status = supervise()
        elif words[:1] == ["progress"] and len(words) == 2:
            from remote_payload.agent.run.progress.reader import read_progress

            status = read_progress(words[1])
        elif words[:1] == ["batch"] and len(words) == 3:
            from remote_payload.agent.run.slurm.batch import batch

            status = batch(words[1], words[2])
        elif words[:1] == ["beside"] and len(words) == 4:
            from remote_payload.agent.run.beside import become

            status = become(*words[1:])
        else:
            usage = "serve NONCE [ROOT] | supervise RUN | progress FOLDER | batch ROOT RUN | beside ROOT RUN WORDS"
            print("usage: " + usage, file=sys.stderr)
    except BaseException as error:
        print("gpurun agent: %s: %s" % (type(error).__name__, error), file=sys.stderr)
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
