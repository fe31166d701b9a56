"""What the loopback hub does when a client creates a repository and commits to it: the routes of the public hub that write.

Small files travel inside the commit, large ones (``LARGE``) before it: by LFS to the storage, or to a Xet store where the hub has one
(``Hub.xet``, a folder that the client's own Xet library writes to).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.hub.state import LARGE, Account, git_blob, large_facts

if TYPE_CHECKING:
    from tests.support.hub.server import Handler

Files = dict[str, bytes]


def route(asked: Handler, path: str, body: bytes) -> None:
    """Answers a POST or PUT."""
    hub = asked.state
    if match := re.fullmatch(r"/storage/(?P<sha256>[0-9a-f]{64})", path):  # signed addresses: without the token
        return _store(asked, match["sha256"], body)
    if path == "/api/validate-yaml":
        return _validate(asked, json.loads(body))
    account = asked.account()
    if account is None:
        return asked.refuse(401, "", "Invalid username or password.")
    if path == "/api/repos/create":
        return _create(asked, account, json.loads(body))
    match = re.fullmatch(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<verb>preupload|commit)/(?P<revision>.+)", path)
    match = match or re.fullmatch(r"/(?P<id>[^/]+/[^/]+)(?P<verb>\.git/info/lfs/objects/batch)", path)
    if not match:
        return asked.refuse(404, "", "Not found")
    if match["id"] not in hub.models:
        return asked.refuse(404, "RepoNotFound", "Repository not found")
    if not may_write(account, match["id"]):
        return asked.refuse(403, "", "you must use a token with write access to this repository")
    if match["verb"] == "preupload":
        return _modes(asked, match["id"], json.loads(body))
    if match["verb"] == "commit":
        return _commit(asked, match["id"], [json.loads(line) for line in body.splitlines()])
    return _batch(asked, json.loads(body))


def xet_token(asked: Handler, name: str) -> None:
    """Where and how the client's Xet library writes."""
    account = asked.account()
    if account is None or not may_write(account, name):
        return asked.refuse(403, "", "you must use a token with write access to this repository")
    asked.json({"casUrl": f"local://{asked.state.xet}", "accessToken": "xet", "exp": int(time.time()) + 3600})


def may_write(account: Account, name: str) -> bool:
    """Whether an account's token may change a repository: its own ones, with a token that writes."""
    return name.split("/")[0] == account.name and account.may_write


def _create(asked: Handler, account: Account, given: dict[str, Any]) -> None:
    hub, name = asked.state, f"{given.get('organization') or account.name}/{given['name']}"
    url = {"url": f"{hub.endpoint}/{name}", "name": name}
    if not may_write(account, name):
        return asked.refuse(403, "", "You don't have the rights to create a model under this namespace")
    if name in hub.models:
        return asked.json({"error": "You already created this model repo"} | url, status=409)
    private = given.get("visibility") == "private" or given.get("private") is True
    hub.add_model(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
    account.granted.add(name)
    return asked.json(url)


def _modes(asked: Handler, name: str, given: dict[str, Any]) -> None:
    there = asked.state.files(name)
    modes = []
    for file in given["files"]:
        path = file["path"]
        large = path.endswith(LARGE)
        content = there.get(path)
        oid = None if content is None else large_facts(content)[0] if large else git_blob(content)
        modes.append(
            {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            | ({"oid": oid} if oid else {})
        )
    asked.json({"files": modes})


def _batch(asked: Handler, given: dict[str, Any]) -> None:
    hub, objects = asked.state, []
    for each in given["objects"]:
        entry = {"oid": each["oid"], "size": each["size"]}
        if each["oid"] not in hub.stored:
            entry["actions"] = {"upload": {"href": f"{hub.storage}/storage/{each['oid']}", "header": {}}}
        objects.append(entry)
    asked.json({"transfer": "basic", "objects": objects})


def _store(asked: Handler, sha256: str, body: bytes) -> None:
    if hashlib.sha256(body).hexdigest() != sha256:
        return asked.refuse(400, "", "the content is not what was announced")
    asked.state.stored[sha256] = body
    asked.json({})


def _validate(asked: Handler, given: dict[str, Any]) -> None:
    errors = metadata_errors(given["content"])
    asked.json({"errors": errors, "warnings": []}, status=400 if errors else 200)


def metadata_errors(card: str) -> list[dict[str, str]]:
    """What the public hub refuses in a card's metadata, as far as gpurun's cards could have it."""
    head = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        data = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError as error:
        return [{"message": f"the YAML cannot be read: {error}"}]
    errors = []
    base = data.get("base_model", [])
    for name in [base] if isinstance(base, str) else base:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
            errors.append({"message": f'"base_model" with value "{name}" is not valid'})
    if data.get("base_model_relation", "adapter") not in ("adapter", "merge", "quantized", "finetune"):
        errors.append({"message": '"base_model_relation" is none of those that there are'})
    licence = data.get("license")
    if licence is not None and not re.fullmatch(r"[a-z0-9.-]+", str(licence)):
        errors.append({"message": f'"license" with value "{licence}" is not valid'})
    return errors


def _commit(asked: Handler, name: str, lines: list[dict[str, Any]]) -> None:
    hub = asked.state
    if hub.refused_commits:
        hub.refused_commits -= 1
        return asked.refuse(500, "", "Internal Error")
    files, header = dict(hub.files(name)), lines[0]["value"]
    if header.get("parentCommit") not in (None, hub.models[name].revisions["main"]):
        return asked.refuse(412, "", "A commit has happened since. Please refresh and try again.")
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            content = hub.stored.get(value["oid"])
            if content is None and hub.xet is None:
                return asked.refuse(400, "", f"{value['path']} was never uploaded")
            files[value["path"]] = content if content is not None else f"xet {value['oid']} {value['size']}".encode()
        elif line["key"] == "deletedFile":
            files.pop(value["path"], None)
    if "README.md" in files and metadata_errors(files["README.md"].decode()):
        return asked.refuse(400, "", "Invalid metadata in README.md")
    commit = hub.add_model(name, files)
    hub.messages.append(header["summary"])
    asked.json({"success": True, "commitOid": commit, "commitUrl": f"{hub.endpoint}/{name}/commit/{commit}"})
