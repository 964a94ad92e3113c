"""A Hugging Face hub on loopback that serves one folder as the model `lab/tiny`, and refuses in the hub's own ways."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40
REFUSALS = {"lab/gated": (403, "GatedRepo"), "lab/none": (404, "RepoNotFound")}


def handler(folder, asked):
    class Hub(BaseHTTPRequestHandler):
        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for key, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            if self.command == "GET":
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
