"""The secrets on their way from the login node to a compute node: a file on the shared file system that says nothing without its key.

The key is as long as the secrets, random, and used once (a one-time pad: Shannon 1949, perfect secrecy). It travels in the environment
of the job, which Slurm keeps apart from the users' file system.
"""

import hashlib
import json
import os
from typing import Dict

from remote_payload.agent.box.files import write_whole
from remote_payload.agent.run.slurm import files
from remote_payload.agent.wire.paths import RunPaths

VARIABLE = "GPURUN_SLURM_KEY"
CHECK = 16  # bytes of a checksum in front, under the pad too


def seal(run: RunPaths, secrets: Dict[str, str]) -> Dict[str, str]:
    """Writes the secrets encrypted; gives the variable with the key for the job's environment, nothing where there are no secrets."""
    if not secrets:
        return {}
    plain = json.dumps(secrets).encode("ascii")
    plain = hashlib.sha256(plain).digest()[:CHECK] + plain
    key = os.urandom(len(plain))
    write_whole(files.secrets(run), _xor(plain, key))
    return {VARIABLE: key.hex()}


def take_key() -> str:
    """The key, removed from this process's environment: the program does not get it."""
    return os.environ.pop(VARIABLE, "")


def unseal(run: RunPaths, key: str) -> Dict[str, str]:
    """The secrets. Raises OSError where the file is gone, damaged, or not for this key."""
    if not key:
        return {}
    with open(files.secrets(run), "rb") as file:
        sealed = file.read()
    pad = bytes.fromhex(key)
    plain = _xor(sealed, pad) if len(sealed) == len(pad) else b""
    check, plain = plain[:CHECK], plain[CHECK:]
    if not plain or hashlib.sha256(plain).digest()[:CHECK] != check:
        raise OSError("the run's secrets cannot be read: %s was changed" % files.secrets(run))
    found = json.loads(plain.decode("ascii"))
    return {str(name): str(value) for name, value in found.items()}


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right))
