"""The error that a verb answers with."""

from typing import Dict


class AgentError(Exception):
    """What the laptop raises under the class ``kind`` of ``runner/domain/errors.py``, if it is one of those that a box may name
    (``runner/transport/session.py``), and else as a HostError."""

    def __init__(self, kind: str, message: str, hint: str = "", meaning: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.meaning = meaning

    def answer(self) -> Dict[str, str]:
        """The ERROR frame's JSON."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint, "meaning": self.meaning}
