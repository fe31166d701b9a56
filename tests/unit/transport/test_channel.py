"""runner/transport/channel.py: what a lost link may not do to those who hang up."""

import paramiko
import pytest

from runner.transport.channel import ChannelPipe


@pytest.mark.parametrize("error", [EOFError(), OSError("Socket is closed"), paramiko.SSHException("no session")])
def test_hanging_up_over_a_lost_link_is_no_error_of_its_own(error: Exception) -> None:
    """paramiko's EOFError there was taken by click for Ctrl-C: a laptop that woke up ended `logs -f` as interrupted."""

    class Lost:
        def settimeout(self, seconds: float) -> None:
            pass

        def close(self) -> None:
            raise error

    ChannelPipe(Lost()).close()  # type: ignore[arg-type]
