"""A wandb server on loopback, just real enough for the client: it answers what wandb-core asks and keeps what arrives.

A run has its history (file stream lines by offset), config, summary and ending; asking to resume it gives these back, as the real
one does. `trouble` makes it misbehave: "500", "hang" or "refuse" for every request; `deleted` holds ids it will not take.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "lab"
KEY = "0123456789" * 4


@dataclass
class Run:
    name: str
    upserts: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[int, str] = field(default_factory=dict)  # offset in the history -> line
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempted: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    overwritten: int = 0  # history lines that came twice

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(self.lines[k]) for k in sorted(self.lines)]

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for upsert in self.upserts:
            found |= json.loads(upsert.get("config") or "{}")
        return {k: v["value"] for k, v in found.items() if isinstance(v, dict) and "value" in v}

    def said(self, key: str) -> Any:
        """The last value of a field of UpsertBucket (groupName, jobType, tags, displayName ...)."""
        return next((u[key] for u in reversed(self.upserts) if u.get(key) is not None), None)


class FakeServer:
    """`loses_rows`: it says yes to history and summary and keeps neither."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.views: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.deleted: set[str] = set()
        self.trouble: str | None = None
        self.loses_rows = False
        self._lock = threading.Lock()
        self._http = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self.trouble = self.trouble and "500"
        self._http.shutdown()
        self._http.server_close()

    def run(self, name: str) -> Run:
        return self.runs.setdefault(name, Run(name))

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = (re.search(r"\b(?:query|mutation)\s+(\w+)", query) or ["", ""])[1]
        with self._lock:
            self.asked.append(name)
            answer = getattr(self, f"_{name}", None)
            return answer(variables) if answer else {"data": {}}

    def _Viewer(self, _: Any) -> dict[str, Any]:
        viewer = {"id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "admin": False,
                  "name": ENTITY, "teams": {"edges": []}, "defaultEntity": {"name": ENTITY}}
        return {"data": {"viewer": viewer}}

    _ViewerEntity = _GetViewer = _GetDefaultEntity = _Viewer

    def _ServerFeaturesQuery(self, _: Any) -> dict[str, Any]:
        return {"data": {"serverInfo": {"features": []}}}

    def _RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:
        known = self.runs.get(v["name"])
        if known is None:
            return {"data": {"model": None}}
        tail = [json.dumps(known.rows[-1])] if known.lines else []
        config = {k: {"value": value} for k, value in known.config.items()}
        bucket = {"id": known.name, "name": known.name, "summaryMetrics": json.dumps(known.summary),
                  "displayName": known.said("displayName"), "logLineCount": 0, "historyLineCount": len(known.lines),
                  "eventsLineCount": 0, "historyTail": json.dumps(tail), "eventsTail": "[]", "config": json.dumps(config),
                  "tags": known.said("tags") or [], "notes": "", "wandbConfig": "{\"t\": 1}"}
        return {"data": {"model": {"id": "p", "name": v["project"], "entity": {"id": "e", "name": ENTITY}, "bucket": bucket}}}

    def _UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:
        if v["name"] in self.deleted:
            return {"errors": [{"message": f"run {ENTITY}/p/{v['name']} was previously created and deleted; try a new run name",
                                "path": ["upsertBucket"]}], "data": None, "status": 409}
        inserted = v["name"] not in self.runs
        found = self.run(v["name"])
        found.upserts.append(v)
        project = {"id": "p", "name": v.get("project") or "uncategorized", "entity": {"id": "e", "name": ENTITY}}
        bucket = {"id": found.name, "name": found.name, "displayName": found.said("displayName") or found.name,
                  "description": "", "config": "{}", "sweepName": None, "historyLineCount": len(found.lines),
                  "project": project}
        return {"data": {"upsertBucket": {"bucket": bucket, "inserted": inserted}}}

    def _ArtifactType(self, _: Any) -> dict[str, Any]:
        return {"data": {"project": None}}  # no artifacts of this type yet

    def _CreateArtifact(self, _: Any) -> dict[str, Any]:
        latest = {"latestArtifact": {"id": "a", "versionIndex": 0}}
        return {"data": {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": latest}}}}

    def _CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": n, "uploadUrl": f"{self.url}/put/{v['run']}/{n}"} for n in v["files"]]
        return {"data": {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}}

    def _NotifyScriptableRunAlert(self, _: Any) -> dict[str, Any]:
        return {"data": {"notifyScriptableRunAlert": {"success": True}}}

    def _UpsertView2(self, v: dict[str, Any]) -> dict[str, Any]:
        self.views.append(v)
        view = {"id": "view", "type": v.get("type"), "name": v.get("name"), "displayName": v.get("displayName"),
                "description": "", "spec": v.get("spec"), "project": {"id": "p", "name": "p", "entityName": ENTITY}}
        return {"data": {"upsertView": {"view": view, "inserted": True}}}

    def _ProjectInternalId(self, _: Any) -> dict[str, Any]:
        return {"data": {"project": {"id": "p", "internalId": "UHJvamVjdDox"}}}

    def stream(self, run: str, sent: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            found = self.run(run)
            for name, part in ({} if self.loses_rows else sent.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    for k, line in enumerate(part["content"]):
                        found.overwritten += part["offset"] + k in found.lines
                        found.lines[part["offset"] + k] = line
                elif name == "wandb-summary.json":
                    found.summary = json.loads(part["content"][-1])
            found.preempted = found.preempted or bool(sent.get("preempting"))
            if sent.get("complete"):
                found.exit_code = sent.get("exitcode")
        return {"limits": {}}


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that goes away in the middle of a request is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value: Any, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _in_trouble(self) -> bool:
        while self.fake.trouble == "hang":
            time.sleep(0.1)
        if self.fake.trouble is not None:
            self._answer({"error": self.fake.trouble}, {"refuse": 401}.get(self.fake.trouble, 500))
            return True
        return False

    def do_POST(self) -> None:
        body = self._body()
        if self._in_trouble():
            return
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            answer = self.fake.graphql(asked["query"], asked.get("variables") or {})
            self._answer(answer, answer.pop("status", 200))
        elif self.path.endswith("/file_stream"):
            self._answer(self.fake.stream(self.path.split("/")[-2], json.loads(body)))
        else:
            self._answer({})

    def do_GET(self) -> None:
        if not self._in_trouble():
            self._answer({})

    def do_PUT(self) -> None:
        body = self._body()
        if self._in_trouble():
            return
        _, _, run, name = self.path.split("/", 3)
        self.fake.run(run).files[name] = body
        self._answer({})
