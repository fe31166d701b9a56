"""The names of paramiko that its documentation does not promise: which ones, that they are there, and that one module has them all."""

import ast
import importlib
import inspect
import pkgutil
import re
import threading
from pathlib import Path

import fabric
import paramiko
import pytest
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.transport import ServiceRequestingTransport

import runner
from runner.transport import paramiko_private
from runner.transport.paramiko_private import OFFERED, DirectTransport, EarlyAuthHandler
from tests.support.cli import REPOSITORY

# Owner, name, and how it is called (None: it is no method).
RELIED_ON = [
    (ServiceRequestingTransport, "_check_banner", ["self"]),
    (ServiceRequestingTransport, "_send_kex_init", ["self"]),
    (ServiceRequestingTransport, "_send_message", ["self", "data"]),
    (ServiceRequestingTransport, "_send_user_message", ["self", "data"]),
    (ServiceRequestingTransport, "_parse_global_request", ["self", "m"]),
    (ServiceRequestingTransport, "_preferred_ciphers", None),
    (ServiceRequestingTransport, "_preferred_kex", None),
    (ServiceRequestingTransport, "_preferred_macs", None),
    (ServiceRequestingTransport, "_preferred_keys", None),
    (paramiko.agent.AgentSSH, "_connect", ["self", "conn"]),
]
# Without an underscore, and yet in no page of paramiko's documentation: what paramiko's own code calls or reads on our classes.
CALLED_BY_PARAMIKO = [
    (ServiceRequestingTransport, "ensure_session", ["self"]),
    (ServiceRequestingTransport, "get_auth_handler", ["self"]),
    (AuthOnlyHandler, "send_auth_request", ["self", "username", "method", "finish_message"]),
]


@pytest.mark.parametrize(("owner", "name", "parameters"), RELIED_ON + CALLED_BY_PARAMIKO)
def test_paramiko_has_what_we_rely_on(owner, name, parameters):
    there = getattr(owner, name)
    assert parameters is None or list(inspect.signature(there).parameters) == parameters


def test_paramiko_itself_calls_what_we_override():
    """A method that nobody calls any more can be overridden without an error, and without an effect."""
    source = inspect.getsource(paramiko.transport)
    assert "self._check_banner()" in source
    assert "self._send_kex_init()" in source
    assert "MSG_GLOBAL_REQUEST: self._parse_global_request" in source
    assert "self.ensure_session()" in source
    assert "self.auth_event = threading.Event()" in inspect.getsource(paramiko.auth_handler)
    assert set(vars(paramiko.Transport(DeadSocket()))) >= {"active", "initial_kex_done", "auth_handler"}
    assert paramiko.Channel(0).remote_chanid == 0


class DeadSocket:
    def settimeout(self, seconds):
        pass


def test_the_list_is_complete():
    tree = parsed(Path(paramiko_private.__file__))
    own = {"_requested_service", "_sent_key_exchange", "_answered"}
    assert private_names(tree, of_self=True) - own == {name for _, name, _ in RELIED_ON}


def test_no_other_module_uses_a_private_name_of_paramiko_or_fabric():
    """Two ways to use one: to read it of an object that is not one's own, and to define it in a class that inherits from theirs."""
    theirs = private_names_of(paramiko) | private_names_of(fabric)
    assert {name for _, name, _ in RELIED_ON} <= theirs
    found = {}
    for path in Path(runner.__file__).parent.rglob("*.py"):
        tree = parsed(path)
        if path != Path(paramiko_private.__file__) and loads_ssh(tree):
            names = private_names(tree, of_self=False) | (overridden(tree) & theirs)
            found |= {str(path.relative_to(REPOSITORY)): names} if names else {}
    assert found == {}


def test_the_count_finds_each_use():
    uses = """
import paramiko, fabric
from paramiko.transport import _join
import paramiko._winapi
class Mine(paramiko.Transport):
    def _send_message(self, data): ...
    _preferred_keys = ()
transport._log, getattr(transport, "_queue"), self._own, cls._own, transport.__class__
"""
    tree = ast.parse(uses)
    assert loads_ssh(tree)
    assert private_names(tree, of_self=False) == {"_join", "_winapi", "_log", "_queue"}
    assert overridden(tree) == {"_send_message", "_preferred_keys"}


def test_what_is_offered_is_what_paramiko_may_be_asked_for():
    options = DirectTransport(DeadSocket()).get_security_options()
    options.key_types = OFFERED["host key"][::-1]
    assert options.key_types == OFFERED["host key"][::-1]
    assert (options.ciphers, options.digests, options.kex) == (OFFERED["cipher"], OFFERED["mac"], OFFERED["kex"])
    assert "gcm" in OFFERED["cipher"][0]
    assert set(OFFERED["cipher"]) == set(ServiceRequestingTransport._preferred_ciphers)


def test_the_version_has_an_upper_bound():
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert re.search(r'"paramiko>=[\d.]+,<\d+"', project)


def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def is_private(name):
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def loads_ssh(tree):
    """Whether a module can have an object of paramiko's or fabric's: it, or one of ours that hands them out, is imported."""
    roots = (
        "paramiko",
        "fabric",
        "runner.transport.paramiko_private",
        "runner.transport.ssh",
        "runner.transport.channel",
    )
    return any(name.split(".")[0] in roots or name in roots for name in imported(tree))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def private_names(tree, of_self):
    """Attributes, imports and strings of getattr that begin with an underscore; ``of_self``: those of ``self`` and ``cls`` too."""
    found = {
        part
        for name in imported(tree)
        if name.split(".")[0] in ("paramiko", "fabric")
        for part in name.split(".")
        if is_private(part)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if of_self or not own:
                found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            if is_private(name):
                found.add(name)
    return found


def overridden(tree):
    """Private names that classes with a base define, or set of themselves."""
    found = set()
    for made in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.bases):
        for node in ast.walk(made):
            if isinstance(node, ast.FunctionDef) and is_private(node.name):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and is_private(node.id):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_private(node.attr):
                found.add(node.attr)
    return found


def private_names_of(package):
    """Private names of every class of a package, and of every attribute that its code reads or sets."""
    found = set()
    for each in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if "win" in each.name or each.name.endswith("__main__"):
            continue
        module = importlib.import_module(each.name)
        found |= private_names(parsed(Path(module.__file__)), of_self=True)
        found |= {
            name for kind in vars(module).values() if inspect.isclass(kind) for name in dir(kind) if is_private(name)
        }
    return found


# What follows has a transport whose peer answers within the call that asks: no network is so fast every time.


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


@pytest.mark.stand_in
def test_an_answer_that_comes_at_once_is_heard():
    transport = Prompt(EarlyAuthHandler)  # a handler holds it weakly
    assert transport.handler.auth_password("root", "") == []


@pytest.mark.stand_in
def test_paramikos_own_waits_for_its_time_limit_then():
    # When this fails, paramiko has mended it, and EarlyAuthHandler can go.
    transport = Prompt(AuthOnlyHandler)
    with pytest.raises(paramiko.AuthenticationException, match="timeout"):
        transport.handler.auth_password("root", "")
