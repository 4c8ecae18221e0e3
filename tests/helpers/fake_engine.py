"""A container engine that only talks: it keeps containers as data, over Docker's API on a loopback port."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

INFO = {"NCPU": 4, "DockerRootDir": "/nowhere", "MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True}


class FakeEngine:
    """Answers as Docker 20.10 does. `containers` maps an id to what `docker inspect` would say."""

    def __init__(self) -> None:
        self.name, self.info = "Engine", dict(INFO)
        self.containers: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        """Bodies of requests to make a container."""
        self.removed: list[str] = []
        self.drops: tuple[str, ...] = ()
        """Fields of HostConfig that are dropped without a word, as Docker does where a cgroup is missing."""
        self.refuses_removal: dict[str, int] = {}
        """Status with which the removal of a container is answered."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, labels: dict[str, str]) -> None:
        """A container that is there already."""
        self.containers[name] = {"Id": name, "Config": {"Labels": labels}, "HostConfig": {}}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and content for a request."""
        if path == "/containers/create":
            return self._create(body)
        known = {"/version": self._version(), "/info": self.info, "/containers/json": self._labelled()}
        if path in known:
            return 200, known[path]
        kind, _, name = path.strip("/").partition("/")
        there = self.containers if kind == "containers" else self.images
        name = unquote(name.removesuffix("/json"))
        if name not in there:
            return 404, {"message": f"no such thing: {name}"}
        if method == "GET":
            return 200, there[name]
        status = self.refuses_removal.get(name, 204)
        if status == 204:
            del there[name]
            self.removed.append(name)
        return status, {"message": f"cannot remove {name}"}

    def _version(self) -> dict[str, Any]:
        parts = [{"Name": self.name, "Version": "20.10.24"}]
        return {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Components": parts}

    def _labelled(self) -> list[dict[str, Any]]:
        listed = [{"Id": c["Id"], "Labels": c["Config"]["Labels"]} for c in self.containers.values()]
        return [c for c in listed if "quantgate.run" in c["Labels"]]

    def _create(self, body: Any) -> tuple[int, Any]:
        self.created.append(body)
        host = {key: value for key, value in body["HostConfig"].items() if key not in self.drops}
        self.containers["new"] = {"Id": "new", "Config": {"Labels": body.get("Labels")}, "HostConfig": host}
        return 201, {"Id": "new", "Warnings": [f"{name} discarded." for name in self.drops]}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = re.sub(r"^/v[\d.]+", "", self.path.split("?")[0])
            status, content = engine.answer(self.command, path, json.loads(body) if body else None)
            data = b"" if status == 204 else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler
