"""What an exception of the Hub's client means for a publication, in words: for the laptop and for the box."""

from __future__ import annotations

from remote_payload.publish.problem import PublishProblem


def as_problem(error: Exception, repository: str) -> PublishProblem:
    """The problem to show. Raises ``error`` itself where neither the Hub nor the network nor a disk is its cause."""
    from huggingface_hub import errors

    if isinstance(error, PublishProblem):
        return error
    status, said = _answer(error)
    if status in (401, 403):
        return PublishProblem(
            f"the token may not write to {repository}",
            kind="refused",
            hint="Give it permission for this repository, or for the owner's repositories, where it was made.",
        )
    if status == 412:
        return PublishProblem(
            f"{repository} was changed by somebody else at this moment",
            kind="unreachable",
            meaning="Nothing was overwritten.",
            hint="Repeat the command: it compares anew.",
        )
    if status == 400:
        return PublishProblem(f"the Hub refuses it: {said}", kind="refused")
    if status is None and not isinstance(error, (OSError, RuntimeError, getattr(errors, "HTTPError", OSError))):
        raise error
    told = f"the Hub answered with status {status}" if status else f"the Hub cannot be reached: {said}"
    return PublishProblem(
        told,
        kind="unreachable",
        meaning="What was uploaded so far is kept there.",
        hint="Repeat the command: it goes on.",
    )


def _answer(error: BaseException) -> tuple[int | None, str]:
    """The status of the Hub's answer (None without one) and its first line; an upload wraps the error of a request."""
    from huggingface_hub.errors import HfHubHTTPError

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, HfHubHTTPError):
            said = link.response.headers.get("X-Error-Message") or str(link)
            return link.response.status_code, _first_line(said, link)
        link = link.__cause__ or link.__context__
    return None, _first_line(str(error), error)


def _first_line(text: str, error: BaseException) -> str:
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]
