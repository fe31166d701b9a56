"""What a supervisor does about the other boxes of its run. For a run on one box all of it is nothing."""

import time
from typing import Callable, NamedTuple, Optional

from remote_payload.agent.run import causes
from remote_payload.agent.run.causes import Explanation
from remote_payload.agent.run.several_boxes.companions import ENDING, LOST, Companions, News
from remote_payload.agent.wire.launch_request import Boxes
from remote_payload.agent.wire.protocol import ExitRecord

BY_ITSELF = 5.0  # seconds in which a payload ends by itself after another box has failed: torchrun does
HURRY = 10.0  # seconds to save after that: without the other box no step can be finished
NEWS_WITHIN = 4.0  # seconds after this box's failure in which another box tells of one that came before
RESUME = "gpurun resume goes on from the last checkpoint: on the boxes that are left (--host), or on others."


class Ending(NamedTuple):
    """How the payload is to be ended because of another box: the kind of the exit; ``grace`` in seconds, None for the usual one."""

    kind: str
    grace: Optional[float] = None


class Together:
    """The other boxes of one run, as its supervisor deals with them."""

    def __init__(self, boxes: Optional[Boxes]) -> None:
        self._boxes = boxes
        self._companions: Optional[Companions] = None
        self._failed_at: Optional[float] = None  # when another box was found to have failed

    def listen(self) -> None:
        """Raises OSError where the port for the others is taken."""
        if self._boxes is not None:
            self._companions = Companions(self._boxes)

    def start(self) -> None:
        """Once the payload was forked."""
        if self._companions is not None:
            self._companions.start()

    def ending(self) -> Optional[Ending]:
        """How the payload has to be ended now because of another box; None while it may go on."""
        news = self._companions.news() if self._companions is not None else None
        if news is None:
            return None
        if news.kind in ENDING:
            return Ending(news.kind)
        self._failed_at = self._failed_at or time.monotonic()
        return Ending("box", HURRY) if time.monotonic() > self._failed_at + BY_ITSELF else None

    def tell_ending(self, kind: str) -> None:
        """Tells the others that the payload is being ended, where it is for a reason of this box."""
        if self._companions is not None and kind in ENDING:
            self._companions.tell_ending(kind)

    def tell_ended(self, record: ExitRecord, explain: Callable[[], Optional[Explanation]]) -> None:
        """Tells the others how the payload has ended."""
        if self._companions is None:
            return
        why = explain()
        succeeded = (record.kind, record.number) == ("exit", 0)
        if succeeded or record.kind in ("exit", "signal"):  # else another box, or a stop, is the reason
            self._companions.tell_ended(succeeded, why.cause if why else None, why.evidence if why else None)

    def better(self, own: Optional[Explanation]) -> Optional[Explanation]:
        """Why the run failed: ``own`` is what this box's log shows, which may only be that another box is gone."""
        if self._companions is None or own is None or not _may_be_a_consequence(own):
            return own
        news = self._companions.await_news(NEWS_WITHIN)
        if news is None or news.kind in ENDING:
            return own
        if news.kind != LOST and _may_be_a_consequence(Explanation(news.cause or "exit", None, None)):
            return own._replace(evidence=own.evidence or str(news))
        return _explanation(news)

    def close(self) -> None:
        """Once all was told."""
        if self._companions is not None:
            self._companions.close()


def _may_be_a_consequence(own: Explanation) -> bool:
    """Whether a box that lost another one would say the same: its cause is no more than an exit code, or a lost connection."""
    return own.cause in causes.SOFT or own.cause.split(" ")[0] in ("exit", "signal", "box")


def _explanation(news: News) -> Explanation:
    if news.kind == LOST:
        return Explanation("box_lost", str(news), RESUME)
    advice = {row.name: row.advice for row in causes.SIGNATURES}
    return Explanation(news.cause or "exit", str(news), advice.get(news.cause or ""))
