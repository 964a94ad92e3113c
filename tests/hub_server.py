"""A Hugging Face hub on loopback: serves one folder as the model `lab/tiny`, takes uploads, and refuses in the hub's own ways."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40
REFUSALS = {"lab/gated": (403, "GatedRepo"), "lab/none": (404, "RepoNotFound"), "locked/tiny": (403, "NoRights")}


def handler(folder, asked):
    class Hub(BaseHTTPRequestHandler):
        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for key, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            path = self.path.split("?")[0].strip("/").removeprefix("api/models/")
            asked.append((self.command, path))
            name, revision = "/".join(path.split("/")[:2]), path.split("/")[3] if path.count("/") > 2 else "main"
            if name in REFUSALS:
                status, code = REFUSALS[name]
                return self.answer(status, X_Error_Code=code, X_Error_Message=code)
            if revision not in ("main", COMMIT):
                return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="no")
            if "/tree/" in path:
                files = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in folder.iterdir()]
                return self.answer(200, json.dumps(files).encode())
            if "/resolve/" not in path:
                files = [{"rfilename": f.name} for f in sorted(folder.iterdir())]
                return self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode())
            file = folder / path.split("/", 4)[4]
            if not file.is_file():
                return self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="no", X_Repo_Commit=COMMIT)
            body = file.read_bytes()
            return self.answer(200, body, X_Repo_Commit=COMMIT, ETag=f'"{hashlib.sha256(body).hexdigest()}"')

        do_HEAD = do_GET

        def taken(self):
            """What was sent; every request is kept with its bearer."""
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("?")[0].strip("/")
            asked.append((self.command, path, self.headers.get("Authorization"), body))
            return path, body

        def do_POST(self):
            """A repository is made and a commit taken as the hub takes them, weights by LFS."""
            path, body = self.taken()
            said = json.loads(body) if body and not path.count("/commit/") else {}
            here = f"http://{self.headers['Host']}"
            if said.get("organization") == "locked":
                return self.answer(403, X_Error_Message="no rights")
            if path == "api/repos/create":
                reply = {"url": f"{here}/{said['organization']}/{said['name']}"}
            elif "/preupload/" in path:
                reply = {"files": [{"path": f["path"], "shouldIgnore": False, "uploadMode":
                                    "lfs" if f["path"].endswith(".safetensors") else "regular"} for f in said["files"]]}
            elif path.endswith("objects/batch"):
                reply = {"transfer": "basic", "objects": [
                    {**o, "actions": {"upload": {"href": f"{here}/lfs/{o['oid']}"}}} for o in said["objects"]]}
            elif "/commit/" in path:
                reply = {"commitUrl": f"{here}/lab/tiny/commit/{COMMIT}", "commitOid": COMMIT}
            else:
                reply = {}
            return self.answer(200, json.dumps(reply).encode())

        def do_PUT(self):
            self.taken()
            self.answer(200)

        def log_message(self, *_):
            pass

    return Hub


@contextmanager
def serving(folder):
    """(address, list that fills with what was asked)."""
    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(folder, asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
