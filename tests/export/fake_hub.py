"""A hub on this machine that takes what huggingface_hub uploads: its own interface, and no more.

Paths and bodies: huggingface_hub 2.4, `hf_api.py`, `_commit_api.py` and `lfs.py`.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "hf_of_a_test"


class FakeHub:
    """`with FakeHub() as hub:` serves at `hub.url`; `hub.files` has what was committed."""

    def __init__(self):
        self.repositories: dict[str, bool] = {}  # name -> private
        self.files: dict[str, bytes] = {}
        self.commits: list[str] = []  # their summaries
        self.blobs: dict[str, bytes] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *unused) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, query: dict, body: bytes) -> dict:
        """The answer to a request; KeyError for a path that the hub does not have."""
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization', 'me')}/{wanted['name']}"
            self.repositories.setdefault(name, wanted.get("visibility") == "private")
            return {"url": f"{self.url}/{name}", "name": name, "id": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            return {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(body)["files"]
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            return {
                "transfer": "basic",
                "objects": [
                    file | {"actions": {"upload": {"href": f"{self.url}/blob?oid={file['oid']}"}}}
                    for file in json.loads(body)["objects"]
                ],
            }
        if path == "/blob":
            oid = query["oid"][0]
            assert hashlib.sha256(body).hexdigest() == oid
            self.blobs[oid] = body
            return {}
        if "/commit/" in path:
            return self.commit(path, [json.loads(line) for line in body.splitlines()])
        raise KeyError(path)

    def commit(self, path: str, operations: list[dict]) -> dict:
        name = path.removeprefix("/api/models/").partition("/commit/")[0]
        assert name in self.repositories
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "header":
                    self.commits.append(value["summary"])
                case "file":
                    assert value["encoding"] == "base64"
                    self.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    self.files[value["path"]] = self.blobs[value["oid"]]
        oid = "0" * 40
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}"}


def handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            allowed = self.headers.get("authorization") == f"Bearer {TOKEN}"
            if address.path == "/blob" or allowed:
                try:
                    self.reply(200, hub.answer(address.path, parse_qs(address.query), body))
                except KeyError as error:
                    self.reply(404, {"error": f"no {error}"})
            else:
                self.reply(401, {"error": "Invalid username or password."})

        do_GET = do_POST = do_PUT = handle_any

        def reply(self, status: int, content: dict) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *unused) -> None:
            """Nothing: pytest shows what matters."""

    return Handler
