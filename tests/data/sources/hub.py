"""A server on loopback with one repository in the layout of the Hugging Face hub, for its own clients."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "1234567890" * 4


class _Repository(BaseHTTPRequestHandler):
    """Answers for one data set, `name`, whose files are in `folder`."""

    name: str
    folder: Path

    def do_HEAD(self) -> None:
        self._answer([])

    def do_GET(self) -> None:
        self._answer([])

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer(form.get("paths", []))

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _answer(self, paths: list[str]) -> None:
        path = unquote(urlsplit(self.path).path)
        about, files = f"/api/datasets/{self.name}", f"/datasets/{self.name}/resolve/{COMMIT}/"
        if path in {about, f"{about}/revision/{COMMIT}"}:
            self._send_json({"id": self.name, "sha": COMMIT, "private": False, "gated": False})
        elif path.startswith(f"{about}/tree/{COMMIT}"):
            below = self.folder / path.removeprefix(f"{about}/tree/{COMMIT}").strip("/")
            self._send_json([self._entry(found) for found in sorted(below.rglob("*"))])
        elif path == f"{about}/paths-info/{COMMIT}":
            self._send_json([self._entry(self.folder / one) for one in paths if (self.folder / one).exists()])
        elif path.startswith(files) and (self.folder / path.removeprefix(files)).is_file():
            self._send((self.folder / path.removeprefix(files)).read_bytes())
        else:
            self._send(b"{}", missing="EntryNotFound" if self.name in path else "RepoNotFound")

    def _send_json(self, document: object) -> None:
        self._send(json.dumps(document).encode())

    def _send(self, content: bytes, *, missing: str | None = None) -> None:
        self.send_response(200 if missing is None else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if missing is not None:
            self.send_header("X-Error-Code", missing)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _entry(self, path: Path) -> dict[str, object]:
        named = {"path": path.relative_to(self.folder).as_posix(), "oid": hashlib.sha256(bytes(path)).hexdigest()[:40]}
        if path.is_dir():
            return {"type": "directory", **named, "size": 0}
        return {"type": "file", **named, "size": path.stat().st_size}


@contextmanager
def serve(name: str, folder: Path) -> Iterator[str]:
    """Serve a folder as the data set `name` and yield the address, which `HF_ENDPOINT` takes."""
    handler = type("Repository", (_Repository,), {"name": name, "folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
