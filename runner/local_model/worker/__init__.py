"""Loads a model and asks it: ``python -m runner.local_model.worker``, a request (JSON) on stdin, lines of JSON on stdout.

The only part of the local tool that imports torch. It runs offline, without a token, on a folder that ``inspect`` let
through, and never runs code that came with a model. Models of gpurun's own are built by the code that trained them.
"""


class Refused(Exception):
    """What the user is told instead of a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
