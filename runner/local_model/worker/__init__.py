"""Loads a model and asks it: ``python -m runner.local_model.worker``, a request on stdin, messages on stdout (``lines.py``).

The only part of the local tool that imports torch. It runs offline, without a token, on a folder that ``inspect.py`` let
through, and never runs code that came with a model. Models of gpurun's own are built by the code that trained them.
"""


class Refused(Exception):
    """The reason why a model is not loaded or asked; the user sees it instead of a traceback. ``of_input`` where it is in a file of
    the user's."""

    def __init__(self, message: str, hint: str = "", *, of_input: bool = False) -> None:
        super().__init__(message)
        self.hint, self.of_input = hint, of_input
