"""placeholder until the next commit"""

from remote_payload.agent.paths import BoxPaths


def sweep(paths: BoxPaths) -> None:
    """Removes secrets of runs that are over."""
