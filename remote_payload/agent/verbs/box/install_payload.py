"""Verb ``install_payload``: the training package, received as a zip, unpacked once a version."""

import hashlib
import os
import posixpath
import shutil
import stat
import tempfile
import zipfile
from typing import IO, Dict, Iterator

from remote_payload.agent.box.files import new_folder, read_json, write_json
from remote_payload.agent.box.snapshot import walk
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import SAFE_PATH, SHA256
from remote_payload.agent.wire.request import Request

MAX_ZIP = 64 << 20
MAX_UNPACKED = 256 << 20
MAX_MEMBERS = 5000
CONTENTS = ".contents.json"  # written into the folder before it gets its name: the size of every file


def install_payload(request: Request) -> Dict[str, str]:
    """Unpacks the uploaded zip into ``payload/<sha256>`` and gives ``{}``; at once where that is there already.

    The final name exists only once all files are there. Raises AgentError TransferFailed for bytes that do not
    have this sha256, and for a zip that would write anywhere else.
    """
    sha256 = request.fields("TransferFailed").text("sha256")
    if not SHA256.fullmatch(sha256):
        raise AgentError("TransferFailed", "not a sha256: %.100r" % sha256)
    final = request.paths.payload(sha256)
    if is_intact(final):
        for _ in request.blobs():
            pass
        return {}
    os.makedirs(posixpath.dirname(final), exist_ok=True)
    with tempfile.TemporaryFile(dir=posixpath.dirname(final)) as archive:
        _receive(request.blobs(), archive, sha256)
        try:
            with new_folder(final) as tree:
                _unpack(archive, tree)
                write_json(os.path.join(tree, CONTENTS), {"sizes": _sizes(tree)})
                _move_away(final)  # damaged; runs that have its files open keep them
        except OSError:
            if not is_intact(final):  # else another submit was faster: the same bytes
                raise
    return {}


def is_intact(folder: str) -> bool:
    """Whether ``payload/<sha256>`` holds every file that was unpacked, in its size. One of an older agent only has to be there."""
    if not os.path.isdir(folder):
        return False
    sizes = (read_json(os.path.join(folder, CONTENTS)) or {}).get("sizes")
    if not isinstance(sizes, dict):
        return os.path.isfile(os.path.join(folder, "remote_payload", "__init__.py"))
    try:
        return all(os.path.getsize(os.path.join(folder, path)) == size for path, size in sizes.items())
    except OSError:
        return False


def _sizes(tree: str) -> Dict[str, int]:
    return {path: status.st_size for path, status in walk(tree)}


def _move_away(folder: str) -> None:
    if os.path.isdir(folder):
        damaged = "%s.partial-%d-damaged" % (folder, os.getpid())  # a name that ``clean`` removes
        os.rename(folder, damaged)
        shutil.rmtree(damaged, ignore_errors=True)


def _receive(blobs: Iterator[bytes], archive: IO[bytes], sha256: str) -> None:
    digest, size = hashlib.sha256(), 0
    for blob in blobs:
        size += len(blob)
        if size > MAX_ZIP:
            raise AgentError("TransferFailed", "the training package is larger than %d MiB" % (MAX_ZIP >> 20))
        digest.update(blob)
        archive.write(blob)
    if digest.hexdigest() != sha256:
        message = "the training package arrived damaged: its sha256 is %s…, not %s…" % (
            digest.hexdigest()[:12],
            sha256[:12],
        )
        raise AgentError("TransferFailed", message, "Try again.")


def _unpack(archive: IO[bytes], tree: str) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED:
                raise AgentError("TransferFailed", "the training package is far too large unpacked")
            for member in members:
                _check_member(member)
            for member in members:
                opened.extract(member, tree)  # fails where the content is longer than its member says
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise AgentError("TransferFailed", "the training package is not a zip: %s" % error) from None


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    inside = SAFE_PATH.fullmatch(name) and not name.startswith("/") and ".." not in name.split("/")
    if not inside or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise AgentError("TransferFailed", "the training package has an unusable member: %.100r" % name)
