"""How the loopback hub answers: the routes and headers of the public hub that its client depends on."""

from __future__ import annotations

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.hub import uploads as hub_uploads
from tests.support.hub.state import LARGE, Account, Hub, Seen, git_blob, large_facts


class Handler(BaseHTTPRequestHandler):
    """One connection. ``state`` is the hub that it serves."""

    state: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.route()

    def do_HEAD(self) -> None:
        self.route()

    def do_POST(self) -> None:
        body = self.body()
        if self.state.broken:
            return self.answer(503, b"down for maintenance")
        return hub_uploads.route(self, unquote(urlsplit(self.path).path), body)

    do_PUT = do_POST

    def route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.state.broken:
            return self.answer(503, b"down for maintenance")
        if path == "/api/whoami-v2":
            return self.whoami()
        if match := re.fullmatch(r"/api/models/(?P<id>[^/]+/[^/]+)/xet-write-token/.+", path):
            return hub_uploads.xet_token(self, match["id"])
        if match := re.fullmatch(r"/api/models/(?P<id>[^/]+(?:/[^/]+)?)/auth-check", path):
            return self.auth_check(match["id"])
        if match := re.fullmatch(r"/api/models/(?P<id>.+?)/tree/(?P<revision>[^/]+)(?:/(?P<under>.+))?", path):
            return self.tree(match["id"], match["revision"], match["under"])
        if match := re.fullmatch(r"/api/models/(?P<id>[^/]+(?:/[^/]+)?)(?:/revision/(?P<revision>.+))?", path):
            return self.model_info(match["id"], match["revision"] or "main")
        if match := re.fullmatch(r"/(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path):
            return self.resolve(match["id"], match["revision"], match["file"])
        if match := re.fullmatch(r"/large/(?P<id>.+)/(?P<commit>[0-9a-f]{40})/(?P<file>.+)", path):
            return self.content(self.state.models[match["id"]].commits[match["commit"]][match["file"]], match["file"])
        return self.refuse(404, "", "Not found")

    # The requests.

    def whoami(self) -> None:
        account = self.account()
        if account is None:
            return self.refuse(401, "", "Invalid username or password.")
        return self.json(account.whoami())

    def auth_check(self, name: str) -> None:
        if self.readable(name, metadata=False):
            self.json({})

    def model_info(self, name: str, revision: str) -> None:
        found = self.readable(name, metadata=True) and self.commit(name, revision)
        if found:
            model = self.state.models[name]
            siblings = [{"rfilename": file} for file in sorted(model.commits[found])]
            gated = "manual" if model.gated else False
            self.json(
                {"id": name, "modelId": name, "sha": found, "private": model.private, "gated": gated, "tags": []}
                | {"siblings": siblings, "downloads": 0, "likes": 0}
                | ({"cardData": model.card} if model.card else {})
            )

    def tree(self, name: str, revision: str, under: str | None) -> None:
        found = self.readable(name, metadata=True) and self.commit(name, revision)
        if not found:
            return
        files = self.state.models[name].commits[found]
        inside = {file: content for file, content in files.items() if not under or file.startswith(under + "/")}
        if under and not inside:
            return self.refuse(404, "EntryNotFound", f"{under} does not exist")
        self.json([_tree_entry(file, content) for file, content in sorted(inside.items())])

    def resolve(self, name: str, revision: str, file: str) -> None:
        found = self.readable(name, metadata=False) and self.commit(name, revision)
        if not found:
            return
        content = self.state.models[name].commits[found].get(file)
        if content is None:
            return self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": found})
        if file.endswith(LARGE):
            headers = {"X-Repo-Commit": found, "Location": f"{self.state.storage}/large/{name}/{found}/{file}"}
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
            return self.answer(302, b"", headers)
        return self.content(content, file, {"X-Repo-Commit": found})

    def content(self, content: bytes, file: str, headers: dict[str, str] | None = None) -> None:
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"} | (headers or {})
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.answer(200, content, headers, file)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first > last:
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self.answer(206, content[first : last + 1], headers, file)

    # Who may, and what there is.

    def account(self) -> Account | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.state.accounts.get(token)

    def readable(self, name: str, *, metadata: bool) -> bool:
        """Answers with the refusal itself where there is one. A gated model may be known by all; its files not."""
        model, account = self.state.models.get(name), self.account()
        granted = account is not None and name in account.granted
        known = "Authorization" in self.headers
        if known and account is None:
            self.refuse(401, "", "Invalid credentials in Authorization header")
            return False
        if model is None or (model.private and not granted):
            self.refuse(404 if known else 401, "RepoNotFound", "Repository not found")
            return False
        if model.gated and not granted and not metadata:
            page = f"{self.state.endpoint}/{name}"
            text = f"Access to model {name} is restricted. You must have access to it and be authenticated: {page}"
            self.refuse(403 if known else 401, "GatedRepo", text)
            return False
        return True

    def commit(self, name: str, revision: str) -> str | None:
        found = self.state.models[name].revisions.get(revision)
        if found is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    # Answers.

    def json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def body(self) -> bytes:
        """What came with the request: as long as it says, or in chunks."""
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        coded = {"X-Error-Code": code} if code else {}
        described = {"X-Error-Message": message, "Content-Type": "application/json"} | coded | (headers or {})
        self.answer(status, json.dumps({"error": message}).encode(), described)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, file: str = "") -> None:
        sent = {name.lower(): value for name, value in self.headers.items()}
        self.state.requests.append(Seen(self.command, self.path, sent, status))
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.state.stalls.get(file)
        if limit is not None and limit < len(body):
            self.wfile.write(body[:limit])
            self.wfile.flush()
            self.state.released.wait()
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: the record in ``requests`` says more."""


def _tree_entry(file: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content)}
    entry["oid"] = git_blob(content)
    if file.endswith(LARGE):
        sha256, entry["size"] = large_facts(content)
        entry["lfs"] = {"oid": sha256, "size": entry["size"], "pointerSize": 134}
    return entry
