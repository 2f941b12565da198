"""A stand-in of the hub's HTTP interface on the loopback: repositories in memory, as much as models need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """Its `repositories`: name -> file -> bytes; `asked` holds what was asked of it, `tokens` by whom."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, name: str) -> str:
        every = sorted(self.repositories[name].items())
        return hashlib.sha1(b"".join(path.encode() + content for path, content in every)).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        size, path = int(self.headers.get("Content-Length") or 0), self._path()
        body = self.rfile.read(size) if size else self._chunks()
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.server.repositories.setdefault(name, {})
            self.server.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self._json({"url": f"{self.server.address}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            return self._json({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                         for file in files]})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[found[1]][line["value"]["path"]] = content
                elif line["key"] == "header":
                    self.server.messages.append(line["value"]["summary"])
            oid = self.server.commit(found[1])
            return self._json({"success": True, "commitOid": oid,
                               "commitUrl": f"{self.server.address}/{found[1]}/commit/{oid}"})
        self._missing()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._path()
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        if found and found[1] in self.server.repositories:
            files = self.server.repositories[found[1]]
            if found[2] == "tree":
                return self._json([{"type": "file", "path": name, "size": len(content),
                                    "oid": hashlib.sha1(content).hexdigest()} for name, content in files.items()])
            return self._json({"id": found[1], "sha": self.server.commit(found[1]),
                               "siblings": [{"rfilename": name} for name in files]})
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if found and found[3] in self.server.repositories.get(found[1], {}):
            content = self.server.repositories[found[1]][found[3]]
            return self._send(content, "application/octet-stream", {
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.server.commit(found[1])})
        self._missing()

    def _path(self) -> str:
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        return path

    def _chunks(self) -> bytes:
        body = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json", {})

    def _missing(self) -> None:
        self._send(b"{}", "application/json", {"X-Error-Code": "RepoNotFound"}, status=404)

    def _send(self, content: bytes, kind: str, headers: dict[str, str], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
