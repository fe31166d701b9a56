"""Runs on the box before the agent: installs the agent where the box does not have it, then becomes the agent.

The laptop sends this file in the command line of ``python -c``, without its docstrings and comment lines (``command.py``): it uses the
standard library only, runs on Python 3.8, and imports nothing that it may not need, since every connection waits for it.
"""

import base64
import hashlib
import os
import re
import sys
import zlib

MAX_FRAMES = 1 << 24
MAX_AGENT = 1 << 26
MAX_LINE = 200
MAX_TEXT = 2000
# ROOT_NAME and SAFE_PATH of the agent's wire/paths.py, which may not be on the box yet.
ROOT_NAME = ".gpurun-box"
SAFE_PATH = "[A-Za-z0-9._/@+-]+"


class Refused(Exception):
    """There will be no agent; ``reason`` is one of the handshake's words."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Laptop:
    """Lines to the laptop, and bytes from it: first those that came in the command line, then standard input.

    Never reads too much: the bytes that follow belong to the agent, which goes on in this process.
    """

    def __init__(self, nonce: str, in_command: bytes) -> None:
        self.nonce = nonce
        self.unread = bytearray(in_command)

    def answer(self, *words: str) -> None:
        os.write(1, (" ".join((self.nonce, *words)) + "\n").encode("ascii", "replace"))

    def read(self, count: int) -> bytes:
        data = self.unread[:count]
        del self.unread[:count]
        while len(data) < count:
            part = os.read(0, min(count - len(data), 1 << 20))
            if not part:
                os._exit(0)
            data += part
        return bytes(data)

    def read_words(self) -> "list[str]":
        line = b""
        while not line.endswith(b"\n") and len(line) < MAX_LINE:
            line += self.read(1)
        return line.decode("ascii").split()


def make_root(volume: str) -> str:
    """The folder that gpurun has on this box, made if it is missing: in ``volume``, or in the home folder for ``-``."""
    top = os.path.expanduser("~") if volume == "-" else volume
    if not (top.startswith("/") and re.fullmatch(SAFE_PATH, top)):
        raise Refused("path", ascii(top))
    if not os.path.isdir(top):
        raise OSError(top + " is not a folder")
    root = os.path.join(os.path.normpath(top), ROOT_NAME)
    for folder in (root, os.path.join(root, "agent")):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
    return root


def is_there(zipapp: str, sha256: str) -> bool:
    """Whether the file has this content."""
    try:
        with open(zipapp, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
    except OSError:
        return False


def receive(laptop: Laptop, zipapp: str, sha256: str) -> None:
    """Asks for the agent and writes it, complete and on the disk before it gets its name."""
    laptop.answer("need", sha256)
    try:
        data = zlib.decompress(laptop.read(min(int(laptop.read_words()[0]), MAX_AGENT)))
    except zlib.error:
        data = b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OSError("the agent arrived damaged")
    partial = zipapp + ".tmp-" + str(os.getpid())
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, zipapp)
    except OSError:
        os.unlink(partial)
        raise


def unpack(zipapp: str, folder: str) -> str:
    """Where Python shall import the agent from: ``folder``, unpacked once, or the zipapp itself where that cannot be written.

    Python compiles what it imports from a zip anew each time: 100 ms for every connection.
    """
    if os.path.isdir(folder):
        return folder
    import shutil
    import zipfile

    partial = folder + ".tmp-" + str(os.getpid())
    try:
        with zipfile.ZipFile(zipapp) as archive:
            archive.extractall(partial)
        os.rename(partial, folder)
        return folder
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        return zipapp


def prepare(laptop: Laptop, volume: str) -> "tuple[str, bytes]":
    """Makes the agent importable; gives ``$ROOT`` and the frames it begins with. Raises Refused or OSError."""
    if os.isatty(0):
        raise Refused("terminal", "standard input is a terminal")
    root = make_root(volume)
    sha256, count = laptop.read_words()
    frames = laptop.read(min(int(count), MAX_FRAMES))
    place = os.path.join(root, "agent", sha256)
    if not is_there(place + ".pyz", sha256):
        receive(laptop, place + ".pyz", sha256)
    sys.path.insert(0, unpack(place + ".pyz", place))
    return root, frames


def run(nonce: str, volume: str, in_command: bytes) -> None:
    """Becomes the agent, which ends the process; or tells the laptop why not, and exits with status 71."""
    laptop = Laptop(nonce, in_command)
    try:
        root, frames = prepare(laptop, volume)
        from remote_payload.agent.__main__ import main
    except Exception as error:
        reason = error.reason if isinstance(error, Refused) else "root"
        laptop.answer("refused", reason, str(error).replace("\n", " ")[:MAX_TEXT])
        os._exit(71)
    main(["serve", nonce, root], frames)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], zlib.decompress(base64.b64decode(sys.argv[4])))
