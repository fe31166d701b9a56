"""The race in paramiko's logins: an answer that is there before anybody waits for it."""

import threading

import paramiko
import pytest
from paramiko.auth_handler import AuthOnlyHandler

from runner.transport.direct_transport import _AuthHandler

pytestmark = (
    pytest.mark.stand_in
)  # a transport whose peer answers within the call that asks: no network is so fast every time


class Prompt:
    """As much of a transport as a login needs."""

    auth_timeout = 0.3
    session_id = b""

    def __init__(self, kind):
        self.lock = threading.RLock()
        self.handler = kind(self)

    def is_active(self):
        return True

    def get_exception(self):
        return None

    def _log(self, *words):
        pass

    def _auth_trigger(self):
        pass

    def _send_message(self, message):
        self.handler._parse_userauth_success(None)


def test_an_answer_that_comes_at_once_is_heard():
    transport = Prompt(_AuthHandler)  # a handler holds it weakly
    assert transport.handler.auth_password("root", "") == []


def test_paramikos_own_waits_for_its_time_limit_then():
    # When this fails, paramiko has mended it, and _AuthHandler can go.
    transport = Prompt(AuthOnlyHandler)
    with pytest.raises(paramiko.AuthenticationException, match="timeout"):
        transport.handler.auth_password("root", "")
